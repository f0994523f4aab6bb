"""What the model is held against: each side alone (must be near chance) and a plain classifier + word list."""

import numpy as np
import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from musti_model.model import MustiModel

from ..metrics import best_threshold, scores
from .match import tokens_of
from .pairs import Pair
from .passages import Passage


@torch.inference_mode()
def naming_probabilities(model: MustiModel, features: dict[str, torch.Tensor]) -> np.ndarray:
    """P(object) of every kept picture, mean of the branches: [N, objects]."""
    parts = []
    count = len(next(iter(features.values())))
    for start in range(0, count, 512):
        encoded = tokens_of(model, features, torch.arange(start, min(start + 512, count)))
        parts.append(torch.stack([model.name_vector(model.image_vector(t)).softmax(-1) for t in encoded.values()]).mean(0))
    return torch.cat(parts).cpu().numpy()


def _score(labels: np.ndarray, probabilities: np.ndarray, dev_labels: np.ndarray, dev: np.ndarray) -> dict:
    result = scores(labels, probabilities, best_threshold(dev_labels, dev))
    return {k: result[k] for k in ("f1_macro", "auc")}


def baselines(
    objects: tuple[str, ...], sets: dict[str, tuple[list[Pair], list[Passage], np.ndarray]]
) -> dict[str, dict[str, float]]:
    """Scores on the test pairs; thresholds from the dev pairs; fitted on the train pairs.

    Args:
        sets: {"train", "dev", "test"} -> (pairs, passages, naming probabilities of the pictures).
    """
    labels = {s: np.array([p.label for p in pairs]) for s, (pairs, _, _) in sets.items()}
    pictures = {s: probabilities[[p.picture for p in pairs]] for s, (pairs, _, probabilities) in sets.items()}
    texts = {s: [passages[p.passage].text for p in pairs] for s, (pairs, passages, _) in sets.items()}
    result = {}
    only_picture = LogisticRegression(max_iter=500).fit(pictures["train"], labels["train"])
    guess = {s: only_picture.predict_proba(pictures[s])[:, 1] for s in sets}
    result["picture only"] = _score(labels["test"], guess["test"], labels["dev"], guess["dev"])
    words = TfidfVectorizer(min_df=3, max_features=20000)
    only_text = LogisticRegression(max_iter=500).fit(words.fit_transform(texts["train"]), labels["train"])
    guess = {s: only_text.predict_proba(words.transform(texts[s]))[:, 1] for s in sets}
    result["text only"] = _score(labels["test"], guess["test"], labels["dev"], guess["dev"])
    listed = {}
    for s, (pairs, passages, _) in sets.items():
        named = np.array([[o in passages[p.passage].named for o in objects] for p in pairs])
        listed[s] = (pictures[s] * named).sum(1)
    result["picture classifier + perfect word list"] = _score(labels["test"], listed["test"], labels["dev"], listed["dev"])
    constant = scores(labels["test"], np.zeros(len(labels["test"])), 0.5)
    result["always NO"] = {"f1_macro": constant["f1_macro"], "auc": 0.5}
    return result
