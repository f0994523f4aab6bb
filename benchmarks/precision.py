"""How far answers move between bfloat16 autocast and float32: ``python -m benchmarks.precision [--weights
ID_OR_FOLDER]``.

Every example picture meets every example passage; the largest and the mean difference are printed, and how many labels
change.
"""

import argparse

import numpy as np
import torch

import app
from musti_model import MustiPipeline
from page.examples import EXAMPLES


def main() -> None:
    """Prints one line for probabilities and one for logits."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.precision", description=__doc__.split("\n\n")[0])
    parser.add_argument("--weights", help="Hub id or folder; default: the embedded starter")
    options = parser.parse_args()
    names = sorted({e.picture for e in EXAMPLES})
    pairs = [(app.ASSETS / "examples" / name, text) for name in names for text in [e.passage for e in EXAMPLES]]
    answers = []
    for autocast in (None, torch.bfloat16):
        pipe = MustiPipeline.from_pretrained(options.weights, precision="float32")
        pipe.autocast = autocast
        answers.append(pipe.predict([p for p, _ in pairs], [t for _, t in pairs]))
    for what in ("probability", "logit"):
        exact, rough = (np.array([getattr(a, what) for a in side]) for side in answers)
        gap = np.abs(exact - rough)
        print(
            f"{what}: largest difference {gap.max():.4f}, mean {gap.mean():.4f}, over {len(pairs)} pairs on "
            f"{pipe.device}"
        )
    print("labels that change:", sum(a.label != b.label for a, b in zip(*answers)))


if __name__ == "__main__":
    main()
