"""Words of the passages that may name an object though no lexicon has them: not to be taught as "names nothing", and
never to make a NO.

The pretrained text encoder places words of all languages that mean alike near each other. How near a word is to an
object is measured to the middle of the object's names and to the nearest of them (a held-back name is told from another
word with AUC .90 by the first alone, .87 by the second alone, .92 by both; "query: " before the word did not help). A
word that is a name but for its accents is doubtful as well.
"""

import hashlib
import json
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn
from tqdm import tqdm
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from ..lexicon.naming import Lexicon, fold, word_spans

SHARE = 0.04  # at most this share of a language's unknown words is doubtful
FOUND = 0.9  # of the known names, held back, so many would be found, if that share allows
LEAST = 3  # letters of a word that is looked at

Encode = Callable[[list[str]], np.ndarray]  # words -> [words, width]


@dataclass(frozen=True)
class Doubtful:
    """words: {language: {word, folded: the object it is near to}}; thresholds: {language: nearness from which a word is
    doubtful}; found: the share of names that would have been found, had the lexicon not known them; looked: {language:
    words looked at}."""

    words: dict[str, dict[str, str]]
    thresholds: dict[str, float]
    found: dict[str, float]
    looked: dict[str, int]


class WordEncoder:
    """Mean of the last states of the pretrained text encoder, word by word.

    folder: ``config.json``, ``model.safetensors``, ``tokenizer.json`` of a BERT-kind encoder.
    """

    def __init__(self, folder: Path, device: str | None = None) -> None:
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        config = {k: v for k, v in json.loads((folder / "config.json").read_text()).items() if k != "model_type"}
        self.tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), pad_token="<pad>")
        self.model = BertModel(BertConfig(**config), add_pooling_layer=False)
        state = {k: v.float() for k, v in load_file(folder / "model.safetensors").items()}
        self.model.load_state_dict(state, strict=False)
        nn.Module.to(self.model, self.device).eval()  # transformers' own ``to`` has no usable type

    @torch.inference_mode()
    def __call__(self, words: list[str], batch: int = 512) -> np.ndarray:
        """-> float32 [words, width]."""
        result = np.zeros((len(words), self.model.config.hidden_size), np.float32)
        order = sorted(range(len(words)), key=lambda i: len(words[i]))  # like lengths together: little padding
        for start in tqdm(range(0, len(order), batch), desc="words", mininterval=5):
            rows = order[start : start + batch]
            enc = self.tokenizer(
                [words[i] for i in rows], padding=True, return_tensors="pt", return_token_type_ids=False
            ).to(self.device)
            states = self.model(**enc).last_hidden_state
            mask = enc["attention_mask"][..., None].to(states.dtype)
            result[rows] = ((states * mask).sum(1) / mask.sum(1)).float().cpu().numpy()
        return result


def doubtful_words(
    texts: Iterable[tuple[str, str]],
    lexicons: dict[str, Lexicon],
    encode: Encode | Path,
    work: Path | None = None,
    share: float = SHARE,
    seed: int = 0,
) -> Doubtful:
    """Which words of the texts are near to an object.

    Args:
        texts: (language, text) of the train passages. lexicons: the training lexicons; their names and what they held
            out are not doubtful.
        encode: list of words -> array [words, width], e.g. ``WordEncoder(folder)``; or the folder, whose encoder is
            then only loaded where needed.
        work: folder where the answer is kept, for the same words, lexicons and share.
    """
    unknown = _unknown(texts, lexicons)
    names = {tag: _names(lexicon) for tag, lexicon in lexicons.items()}
    digest = hashlib.sha256(json.dumps([unknown, names, share, FOUND, seed], sort_keys=True).encode()).hexdigest()[:12]
    kept = None if work is None else work / f"doubtful-{digest}.json"
    if kept is not None and kept.exists():
        return Doubtful(**json.loads(kept.read_text(encoding="utf-8")))
    encode = WordEncoder(encode) if isinstance(encode, Path) else encode
    result = _compare(unknown, names, encode, share, seed)
    if kept is not None:
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(asdict(result), ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    return result


def _unknown(texts: Iterable[tuple[str, str]], lexicons: dict[str, Lexicon]) -> dict[str, list[str]]:
    found: dict[str, set[str]] = {tag: set() for tag in lexicons}
    for language, text in texts:
        if language in found:
            found[language].update(fold(text[start:end]) for start, end in word_spans(text))
    parts = {tag: {w for form in lexicon.forms() for w in form.split()} for tag, lexicon in lexicons.items()}
    return {tag: sorted(w for w in words - parts[tag] if len(w) >= LEAST) for tag, words in found.items()}


def _names(lexicon: Lexicon) -> list[tuple[str, str]]:
    """(object, first form) of each plain name: neither old spellings nor kinds, whose middle would be anywhere."""
    rows = [
        (n.object, fold(next(iter(n.forms.values()))))
        for names in lexicon.names.values()
        for n in names
        if n.forms and not n.ambiguous
    ]
    return sorted(set(rows))


def _compare(
    unknown: dict[str, list[str]], names: dict[str, list[tuple[str, str]]], encode: Encode, share: float, seed: int
) -> Doubtful:
    objects = sorted({o for rows in names.values() for o, _ in rows})
    vectors = {tag: encode([w for _, w in names[tag]] + unknown[tag]) for tag in names}
    # Each language's own mean is removed: what all its words have in common tells nothing.
    for own in vectors.values():
        if len(own):
            own -= own.mean(0)
            own /= np.maximum(np.linalg.norm(own, axis=1, keepdims=True), 1e-9)
    known = np.concatenate([vectors[tag][: len(names[tag])] for tag in names])
    labels = np.array([objects.index(o) for tag in names for o, _ in names[tag]])
    languages = np.array([tag for tag in names for _ in names[tag]])
    back = _held_back(known, labels, len(objects), seed)
    plain = {_bare(w): o for rows in names.values() for o, w in rows if len(w) > LEAST + 1}
    words, thresholds, found = {}, {}, {}
    for tag, rows in unknown.items():
        own = back[languages == tag]
        close = _nearness(vectors[tag][len(names[tag]) :], known, labels, len(objects))
        respelled = {w: plain[_bare(w)] for w in rows if _bare(w) in plain}
        if not len(rows) or not len(own):
            words[tag], thresholds[tag], found[tag] = respelled, 1.0, 0.0
            continue
        nearest = close.max(1)
        threshold = max(float(np.quantile(nearest, 1 - share)), float(np.quantile(own, 1 - FOUND)))
        words[tag] = {rows[i]: objects[int(close[i].argmax())] for i in np.flatnonzero(nearest > threshold)} | respelled
        thresholds[tag], found[tag] = threshold, float((own > threshold).mean())
    return Doubtful(words, thresholds, found, {tag: len(rows) for tag, rows in unknown.items()})


def _bare(word: str) -> str:
    """Without accents."""
    return "".join(c for c in unicodedata.normalize("NFD", word) if not unicodedata.combining(c))


def _nearness(vectors: np.ndarray, known: np.ndarray, labels: np.ndarray, count: int, batch: int = 2048) -> np.ndarray:
    """[N, objects]: mean of the cosines with the middle of the object's names and with the nearest of them; -1 for an
    object without names."""
    order = np.argsort(labels, kind="stable")
    known, labels = known[order], labels[order]
    present, starts = np.unique(labels, return_index=True)
    middles = np.add.reduceat(known, starts) if len(known) else known
    middles = middles / np.maximum(np.linalg.norm(middles, axis=1, keepdims=True), 1e-9)
    result = np.full((len(vectors), count), -1.0, np.float32)
    for start in range(0, len(vectors), batch) if len(known) else ():
        part = vectors[start : start + batch]
        nearest = np.maximum.reduceat(part @ known.T, starts, axis=1)
        result[start : start + batch, present] = (nearest + part @ middles.T) / 2
    return result


def _held_back(vectors: np.ndarray, labels: np.ndarray, count: int, seed: int, folds: int = 5) -> np.ndarray:
    """How near each name is to an object when it and a fifth of the others are not known."""
    part = np.random.default_rng(seed).integers(folds, size=len(labels))
    result = np.zeros(len(labels))
    for k in range(folds):
        rest = part != k
        result[~rest] = _nearness(vectors[~rest], vectors[rest], labels[rest], count).max(1, initial=-1.0)
    return result
