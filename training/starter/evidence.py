"""Whether the evidence that a visitor is shown points at the right word and at the right part of the picture, and
whether historical photographs find their passages."""

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from musti_model import Explanation, MustiPipeline
from musti_model.results import Evidence

from .augment import box_places
from .measures import QUARTERS, grids
from .pairs import Pair
from .passages import Passage
from .pictures import Pictures

# files of DATA/examples
PHOTOGRAPHS = {"sheep": "march-pastoral.jpg", "flower": "allium-oreophilum.jpg", "ship": "nagasaki-boats.jpg"}
SENTENCES = Path(__file__).parent / "photographs.json"


def evidence_scores(
    pipe: MustiPipeline, pictures: Pictures, passages: list[Passage], pairs: list[Pair], count: int, seed: int = 5
) -> dict[str, float]:
    """Of explanations as ``MustiPipeline.explain`` makes them, whatever was answered.

    Args:
        pairs: of which ``count`` YES pairs are drawn, and as many grids of four pictures, one of which the passage
            names, made.

    Returns: "in_quarter": share of the evidence for YES that lies in the right quarter of a grid (chance .25);
        "top_word": share of the YES pairs whose word with the most evidence lies in a name of the shared object;
        "grids", "pairs": their numbers.
    """
    rng = np.random.default_rng(seed)
    yes = [p for p in pairs if p.label]
    chosen = [yes[i] for i in rng.permutation(len(yes))[:count]]
    inside, hits = [], []
    for pixels, at, quarter in tqdm(grids(pictures, passages, count, seed), desc="grids", mininterval=10):
        explanation = pipe.explain(Image.fromarray(pixels), passages[at].text)
        inside.append(share_in_quarter(map_of(explanation), quarter))
    for pair in tqdm(chosen, desc="words", mininterval=10):
        explanation = pipe.explain(
            Image.fromarray(np.asarray(pictures.pixels[pair.picture])), passages[pair.passage].text
        )
        hits.append(top_word_names(explanation, passages[pair.passage], pair.object))
    return {
        "in_quarter": float(np.mean(inside)) if inside else 0.25,
        "top_word": float(np.mean(hits)),
        "grids": len(inside),
        "pairs": len(hits),
    }


def evidence_of(explanation: Explanation) -> Evidence:
    """What was asked for. Raises ValueError where it was not."""
    if explanation.evidence is None:
        raise ValueError("This explanation was made without evidence.")
    return explanation.evidence


def map_of(explanation: Explanation) -> Tensor:
    """Its evidence on its own grid. Raises ValueError where the image tokens have no place."""
    grid = evidence_of(explanation).grid
    if grid is None:
        raise ValueError("The image tokens of these weights have no place in the picture.")
    return grid


def share_in_quarter(values: Tensor, quarter: int) -> float:
    """Share of the positive values of a map [rows, columns] (even numbers) in a quarter 0..3; a quarter of nothing is a
    quarter."""
    positive = torch.as_tensor(values).clamp(min=0)
    rows, columns = positive.shape
    inside = box_places(QUARTERS[None], (rows, columns))[0, quarter].view(positive.shape)
    total = positive.sum()
    return float((positive * inside).sum() / total) if total > 0 else 0.25


def top_word_names(explanation: Explanation, passage: Passage, name: str) -> bool:
    """Whether the word with the most evidence lies in a name of the object. The explanation's passage may be cleaned,
    so spans are sought in its own text."""
    start, end = explanation.word_spans[int(np.argmax(evidence_of(explanation).words))]
    offset = 0 if explanation.passage == passage.text else passage.text.find(explanation.passage)
    start, end = start + max(0, offset), end + max(0, offset)
    return any(m.object == name and m.start < end and m.end > start for m in passage.mentions)


def photograph_scores(pipe: MustiPipeline, folder: Path) -> dict[str, dict[str, float]]:
    """Historical photographs, each with eight sentences of every language, one of which is about what it shows.

    Returns: {language: {"first": share of the photographs whose own sentence ranks first; "verdicts": share of the
        answers that are right (always NO: .875)}}.
    """
    result = {}
    for language, sentences in json.loads(SENTENCES.read_text(encoding="utf-8")).items():
        names, texts = list(sentences), list(sentences.values())
        first, right = [], []
        for shown, file in PHOTOGRAPHS.items():
            ranked = pipe.rank(folder / file, texts)
            first.append(names[ranked[0][0]] == shown)
            right += [(p.label == "YES") == (names[i] == shown) for i, p in ranked]
        result[language] = {"first": float(np.mean(first)), "verdicts": float(np.mean(right))}
    return result
