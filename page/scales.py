"""One scale for like things: what stands side by side in one unit is drawn on one scale, so that equal colours mean
equal numbers."""

import numpy as np

from musti_model import Explanation
from musti_model.figures import signed_scale_of
from musti_model.methods import method
from musti_model.methods.contract import Kind, Unit

# what is smaller is never drawn in full colour: in the logit it hardly moves an answer, of a vote it is a twentieth
LEAST = 0.05


def scale_for(kind: Kind, unit: Unit, *explanations: Explanation, effects: bool = True) -> tuple[float, float]:
    """The values drawn purplest and most orange, the same distance from 0, for all words or all regions of some
    explanations in one unit: evidence of the whole model and of its branches and, in units of the logit, what the gate
    changed. So an effect of .0007 beside evidence of 3 has hardly any colour. At least LEAST. effects: whether
    what the gate changed counts; not so for regions of evidence, whose cells are other ones than the gate's patches."""
    found = [np.array([LEAST])]
    for e in explanations:
        parts = () if e.evidence is None else (e.evidence, *e.evidence.branches.values())
        alike = [part for part in parts if method(kind, part.methods[kind]).unit == unit]
        found += [_values(part.words if kind == "words" else part.grid) for part in alike]
        if effects and unit == "logit":
            found += [_values(effect.words if kind == "words" else effect.patches) for effect in e.gate_effect.values()]
    return signed_scale_of(np.concatenate(found))


def _values(values: object) -> np.ndarray:
    """A list, an array, a tensor, or none, as one row of numbers."""
    return np.zeros(0) if values is None else np.asarray(values, dtype=float).ravel()
