"""The methods of explanation, all of one contract (``contract.Method``)."""

from .close_up import BOTH, CLOSE_UP
from .contract import Kind, Method, combined, total
from .contribution import CONTRIBUTION
from .gate_effect import EFFECT_REGIONS, EFFECT_WORDS
from .hiding import IN_PLACE
from .looks import ATTENTION, GATE_REGIONS, GATE_WORDS, GRADCAM, ROLLOUT
from .occlusion import OCCLUSION
from .relevance import OF_REGIONS, OF_WORDS

EVIDENCE = (OCCLUSION, OF_WORDS, BOTH, IN_PLACE, CLOSE_UP, CONTRIBUTION, OF_REGIONS)  # what the answer hangs on
# where the model looked, what its gate did
LOOKS = (ATTENTION, GATE_WORDS, GATE_REGIONS, EFFECT_WORDS, EFFECT_REGIONS, ROLLOUT, GRADCAM)
METHODS = EVIDENCE + LOOKS
# What people are shown as evidence. Of words the best that was measured (``benchmarks.faithfulness``); of regions the
# best with the weights of version 0.1, and of those that add up over the branches.
BEST: dict[Kind, Method] = {"words": OCCLUSION, "regions": BOTH}
QUICK: dict[Kind, Method] = {"words": OF_WORDS, "regions": OF_REGIONS}  # where many passes take too long


def method(kind: Kind, name: str) -> Method:
    """The method of a kind that is called so. Raises KeyError."""
    return {(m.kind, m.name): m for m in METHODS}[kind, name]


__all__ = ["BEST", "EVIDENCE", "LOOKS", "METHODS", "QUICK", "Kind", "Method", "combined", "method", "total"]
