"""What the model is held against: each side alone (must be near chance) and a plain classifier + word list."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from musti_model.image_tower import ImageTokens
from musti_model.model import MustiModel

from ..report.metrics import best_threshold, scores
from .pairs import Pair
from .passages import Passage


@torch.inference_mode()
def naming_probabilities(model: MustiModel, encoded: dict[str, ImageTokens], batch: int = 512) -> np.ndarray:
    """P(object) of every picture, mean of the branches, "nothing known" left out: [N, objects]."""
    parts = []
    count = len(next(iter(encoded.values())).tokens)
    for start in range(0, count, batch):
        images = [ImageTokens(t.tokens[start : start + batch].float(), t.grid) for t in encoded.values()]
        parts.append(torch.stack([model.name_picture(image)[:, :-1].softmax(-1) for image in images]).mean(0))
    return torch.cat(parts).cpu().numpy()


@dataclass(frozen=True)
class Sided:
    """Pairs, the passages that they are of, and the pictures' ``naming_probabilities``."""

    pairs: Sequence[Pair]
    passages: Sequence[Passage]
    pictures: np.ndarray

    @property
    def labels(self) -> np.ndarray:
        """[N] 0/1."""
        return np.array([p.label for p in self.pairs])

    @property
    def texts(self) -> list[str]:
        """Each pair's passage."""
        return [self.passages[p.passage].text for p in self.pairs]

    @property
    def shown(self) -> np.ndarray:
        """[N, objects], what each pair's picture shows."""
        return self.pictures[[p.picture for p in self.pairs]]


def baselines(objects: tuple[str, ...], dev: Sided, test: Sided) -> dict[str, dict[str, float]]:
    """Scores on the test pairs; fitted, and thresholds chosen, on the dev pairs."""

    def score(on_dev: np.ndarray, on_test: np.ndarray) -> dict[str, float]:
        result = scores(test.labels, on_test, best_threshold(dev.labels, on_dev))
        return {k: result[k] for k in ("f1_macro", "auc")}

    picture = LogisticRegression(max_iter=500).fit(dev.shown, dev.labels)
    words = TfidfVectorizer(max_features=20000)
    text = LogisticRegression(max_iter=500).fit(words.fit_transform(dev.texts), dev.labels)
    listed = [
        (side.shown * np.array([[o in side.passages[p.passage].named for o in objects] for p in side.pairs])).sum(1)
        for side in (dev, test)
    ]
    constant = scores(test.labels, np.zeros(len(test.labels)), 0.5)
    return {
        "picture only": score(*(picture.predict_proba(side.shown)[:, 1] for side in (dev, test))),
        "text only": score(*(text.predict_proba(words.transform(side.texts))[:, 1] for side in (dev, test))),
        "picture classifier + perfect word list": score(*listed),
        "always NO": {"f1_macro": constant["f1_macro"], "auc": 0.5},
    }
