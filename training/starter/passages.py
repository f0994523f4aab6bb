"""Historical passages with the objects they name; split by passage, multiplied by swapping names and by OCR wear."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from .lexicon import LANGUAGES, WORD, Lexicon, Mention
from .pictures import split_of

WINDOW = 90  # words of a passage cut from a long document, about MUSTI's mean


@dataclass(frozen=True)
class Passage:
    """text; language; mentions: names found in it; origin: "musti" or "corpora"."""

    text: str
    language: str
    mentions: tuple[Mention, ...]
    origin: str

    @property
    def named(self) -> set[str]:
        """Objects surely named."""
        return {m.object for m in self.mentions if m.sure}

    @property
    def touched(self) -> set[str]:
        """Objects surely or possibly named: none of these makes a NO."""
        return {m.object for m in self.mentions}


def _documents(data: Path) -> list[tuple[str, str, str]]:
    """(text, language, origin), long documents cut into windows that share no word."""
    rows: dict[str, tuple[str, str, str]] = {}
    musti = data / "musti" / "musti-train.json"
    if musti.exists():
        for pair in json.loads(musti.read_text(encoding="utf-8"))["pairs"]:
            rows[pair["text"]] = (pair["text"], pair["language"], "musti")
    for language in LANGUAGES:
        corpus = data / "corpora" / f"odeuropa-{language}.txt"
        for line in corpus.read_text(encoding="utf-8").splitlines() if corpus.exists() else []:
            words = line.split()
            for start in range(0, len(words), WINDOW):
                text = " ".join(words[start : start + WINDOW])
                rows[text] = (text, language, "corpora")
    return list(rows.values())


def load_passages(data: Path, lexicons: dict[str, Lexicon]) -> dict[str, list[Passage]]:
    """All passages by split. MUSTI texts are kept whole; a text that begins alike goes to the same split, and a passage of dev or
    test half of whose words in a row are also in train is left out."""
    splits: dict[str, list[Passage]] = {"train": [], "dev": [], "test": []}
    for text, language, origin in _documents(data):
        if language not in lexicons or len(WORD.findall(text)) < 8:
            continue
        mentions = tuple(lexicons[language].find(text))
        key = "".join(text.lower().split())[:60]
        splits[split_of(key, dev=0.12, test=0.12)].append(Passage(text, language, mentions, origin))
    known = {s for p in splits["train"] for s in _shingles(p.text)}
    for split in ("dev", "test"):
        splits[split] = [p for p in splits[split] if not _mostly(p.text, known)]
    return splits


def _shingles(text: str, size: int = 8) -> set[str]:
    """All runs of ``size`` words, folded."""
    words = [w.group().lower() for w in WORD.finditer(text)]
    return {" ".join(words[i : i + size]) for i in range(len(words) - size + 1)}


def _mostly(text: str, known: set[str]) -> bool:
    """Whether half of the passage's runs of words are known: the same text again, begun a few words earlier or later."""
    own = _shingles(text)
    return bool(own) and len(own & known) >= len(own) / 2


def window(passage: Passage, rng: np.random.Generator, keep: Mention | None, low: int = 8, high: int = 160) -> Passage:
    """A stretch of random length around ``keep`` (or anywhere), in whole words."""
    spans = [(m.start(), m.end()) for m in WORD.finditer(passage.text)]
    size = min(len(spans), int(rng.integers(low, high)))
    first_must = next((i for i, s in enumerate(spans) if keep and s[1] > keep.start), None)
    low_start = 0 if first_must is None else max(0, first_must - size + 1)
    high_start = len(spans) - size if first_must is None else min(first_must, len(spans) - size)
    start = int(rng.integers(min(low_start, high_start), high_start + 1))
    a, b = spans[start][0], spans[start + size - 1][1]
    if keep:
        a, b = min(a, keep.start), max(b, keep.end)
    inside = [replace(m, start=m.start - a, end=m.end - a) for m in passage.mentions if m.start >= a and m.end <= b]
    return replace(passage, text=passage.text[a:b], mentions=tuple(inside))


def swap(passage: Passage, mention: Mention, target: str, lexicon: Lexicon, rng: np.random.Generator) -> Passage | None:
    """The passage with one name replaced by a name of ``target``; None where the language has none."""
    form = lexicon.replacement(mention, target, rng)
    if form is None:
        return None
    old = passage.text[mention.start : mention.end]
    if old[:1].isupper() and rng.random() < 0.7:
        form = form[:1].upper() + form[1:]
    return _rename(passage, mention, target, form)


def _rename(passage: Passage, mention: Mention, target: str, form: str) -> Passage:
    """``form``, a name of ``target``, put in the place of one mention; all offsets follow."""
    shift = len(form) - (mention.end - mention.start)
    text = passage.text[: mention.start] + form + passage.text[mention.end :]
    moved = []
    for m in passage.mentions:
        if m is mention or m == mention:
            moved.append(replace(m, end=m.start + len(form), object=target, sure=True))
        else:
            moved.append(replace(m, start=m.start + shift, end=m.end + shift) if m.start > mention.start else m)
    return replace(passage, text=text, mentions=tuple(moved))


_CONFUSED = {
    "s": "fſ", "f": "s", "e": "co", "c": "e", "o": "c0", "i": "l1", "l": "i1", "u": "n", "n": "u", "h": "b", "b": "h",
    "t": "l", "r": "i", "m": "n", "v": "u", "a": "o", "g": "q", "č": "c", "é": "e", "è": "e", "ä": "a", "ö": "o", "ü": "u",
}  # fmt: skip


def wear(passage: Passage, rng: np.random.Generator, rate: float) -> Passage:
    """OCR wear: confused, lost, doubled characters at ``rate`` a character; offsets follow, names keep half their length."""
    out, moved_at = [], np.zeros(len(passage.text) + 1, dtype=int)
    draws = rng.random(len(passage.text))
    length = 0
    for i, c in enumerate(passage.text):
        moved_at[i] = length
        if draws[i] < rate and c.isalpha():
            kind = rng.random()
            options = _CONFUSED.get(c.lower(), "")
            if kind < 0.65 and options:
                c = options[int(rng.integers(len(options)))]
            elif kind < 0.8:
                c = ""
            elif kind < 0.9:
                c = c + c
        out.append(c)
        length += len(c)
    moved_at[-1] = length
    mentions = [replace(m, start=int(moved_at[m.start]), end=int(moved_at[m.end])) for m in passage.mentions]
    return replace(passage, text="".join(out), mentions=tuple(m for m in mentions if m.end > m.start))


def sprinkle(passage: Passage, targets: list[str], lexicon: Lexicon, rng: np.random.Generator) -> Passage:
    """A passage in which random words that name nothing give way to names of ``targets``: no sentence, but many names in few words."""
    taken = [(m.start, m.end) for m in passage.mentions]
    free = [w for w in WORD.finditer(passage.text) if not any(w.start() < e and w.end() > s for s, e in taken)]
    chosen = sorted(rng.choice(len(free), size=min(len(targets), len(free)), replace=False)) if free else []
    spots = [Mention(free[i].start(), free[i].end(), "", "", "") for i in chosen]
    for spot, target in reversed(list(zip(spots, targets))):
        form = lexicon.any_form(target, rng)
        if form is not None:
            at = replace(passage, mentions=(*passage.mentions, spot))
            passage = _rename(at, spot, target, form)
    return passage


class PassageMill:
    """Endless training passages: a passage, a name in it swapped or kept, a window around it, wear."""

    def __init__(self, passages: list[Passage], lexicons: dict[str, Lexicon], objects: tuple[str, ...]) -> None:
        self.lexicons, self.objects = lexicons, objects
        self.naming = [p for p in passages if p.named]
        languages = [p.language for p in self.naming]
        counts = {language: languages.count(language) for language in set(languages)}
        weights = np.array([1 / np.sqrt(counts[p.language]) * (2 if p.origin == "musti" else 1) for p in self.naming])
        self.weights = np.cumsum(weights / weights.sum())
        self.by_language = {language: [p for p in passages if p.language == language] for language in counts}

    def drill(self, rng: np.random.Generator, low: int, high: int) -> tuple[Passage, str]:
        """A few words in one language with one to three names of random objects among them, and one of these objects."""
        language = list(self.by_language)[int(rng.integers(len(self.by_language)))]
        while True:
            passages = self.by_language[language]
            passage = window(passages[int(rng.integers(len(passages)))], rng, None, low, high)
            targets = [self.objects[int(k)] for k in rng.integers(len(self.objects), size=int(rng.integers(1, 4)))]
            passage = sprinkle(passage, targets, self.lexicons[language], rng)
            if rng.random() < 0.3:
                passage = wear(passage, rng, float(rng.uniform(0.003, 0.04)))
            named = [t for t in targets if t in passage.named]
            if named:
                return passage, named[0]

    def draw(self, rng: np.random.Generator, low: int = 8, high: int = 120) -> tuple[Passage, str]:
        """A training passage of ``low`` to ``high`` words and the object it was made to name."""
        while True:
            passage = self.naming[min(int(np.searchsorted(self.weights, rng.random())), len(self.naming) - 1)]
            sure = [m for m in passage.mentions if m.sure]
            mention = sure[int(rng.integers(len(sure)))]
            target = mention.object
            if rng.random() < 0.75:
                target = self.objects[int(rng.integers(len(self.objects)))]
                swapped = swap(passage, mention, target, self.lexicons[passage.language], rng)
                if swapped is None:
                    continue
                index = passage.mentions.index(mention)
                passage, mention = swapped, swapped.mentions[index]
            passage = window(passage, rng, mention, low, high)
            if rng.random() < 0.5:
                passage = wear(passage, rng, float(rng.uniform(0.003, 0.04)))
            if target in passage.named:
                return passage, target
