"""An explanation of a question, put together from the methods; and what of it can be measured."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .errors import InputError
from .frames import Maps
from .fusion import ScalarGate
from .methods import BEST, Kind, Method, combined, method, total
from .methods.deletion_insertion import of_regions, of_words
from .methods.looks import Look, gate_maps, gates, heads, rollouts, words_attended
from .model import MustiModel
from .question import Question
from .results import Evidence, Explanation, Faithfulness, GateWeights, Prediction


def explained(looked: Look, prediction: Prediction, settings: dict[str, Any]) -> Explanation:
    """What was seen in the pass that answered; evidence and the gate's effect are to be put beside it."""
    question, model = looked.question, looked.question.model
    words, by_kind = (
        question.passages.words[0],
        {"gate": gate_maps(looked), "rollout": rollouts(looked), "gradcam": looked.cams},
    )
    grids = {f"{kind}:{n}": maps[n] for n in model.branches for kind, maps in by_kind.items() if n in maps}
    return Explanation(
        prediction=prediction,
        image=question.picture,
        passage=question.passages.texts[0],
        words=[w.text for w in words],
        word_spans=[(w.start, w.end) for w in words],
        gates=gates(looked),
        gate_weights=_scalars(model),
        maps=Maps(grids, *question.picture.size),
        heads={n: h.numpy() for n, h in heads(looked).items()},
        word_attention=words_attended(looked),
        settings=settings,
        gate=model.config.gate,
        asked=question.fingerprint,
    )


def _scalars(model: MustiModel) -> GateWeights | None:
    if not isinstance(model.fusion, ScalarGate):
        return None
    w_image, w_text = model.fusion.scalars.weight[0].tolist()
    return GateWeights(w_image, w_text, model.fusion.scalars.bias.item())


def evidence_of(question: Question, by: Mapping[Kind, Method] = BEST) -> Evidence:
    """Evidence by two methods whose values add up over the branches, one of words and one of regions."""
    methods: dict[str, str] = {kind: m.name for kind, m in by.items()}
    size = question.picture.size
    words, maps = by["words"].run(question), by["regions"].run(question)
    branches = {n: Evidence(values.tolist(), maps.get(n), size, methods) for n, values in words.items()}
    return Evidence(total(words).tolist(), combined(maps) if maps else None, size, methods, branches)


# Faithfulness ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Shown:
    """One list of word values, [words], or one map, [h, w] in the picture's frame, that an explanation holds, and the
    method that made it."""

    method: Method
    values: Tensor


def shown(explanation: Explanation) -> dict[str, Shown]:
    """Everything in an explanation that can be measured, by name: "words" and "regions" (evidence of the whole model),
    "words:<branch>" and "regions:<branch>" (of one), "attention:<branch>" (of the words), "effect:<branch>" (of patches
    through the gate), and each of ``explanation.maps`` by its name. What has no map is left out.

    Raises: InputError for an explanation without evidence.
    """
    whole = explanation.evidence
    if whole is None:
        raise InputError("This explanation was made without evidence; make it again with evidence=True.")
    result = {}
    for suffix, part in ({"": whole} | {f":{n}": e for n, e in whole.branches.items()}).items():
        result[f"words{suffix}"] = Shown(method("words", part.methods["words"]), torch.tensor(part.words))
        if part.grid is not None:
            result[f"regions{suffix}"] = Shown(method("regions", part.methods["regions"]), part.grid)
    attention, effect = method("words", "attention"), method("regions", "effect")
    result |= {
        attention.key(n): Shown(attention, torch.tensor(values)) for n, values in explanation.word_attention.items()
    }
    result |= {
        effect.key(n): Shown(effect, torch.from_numpy(e.patches))
        for n, e in explanation.gate_effect.items()
        if e.patches is not None
    }
    return result | {
        name: Shown(method("regions", name.partition(":")[0]), grid) for name, grid in explanation.maps.grids.items()
    }


def measured(question: Question, explanation: Explanation) -> dict[str, Faithfulness]:
    """How faithful everything that is ``shown`` is, by the whole model's answer.

    Raises: InputError for an explanation without evidence, or of another picture or passage.
    """
    if explanation.asked != question.fingerprint:
        raise InputError(
            "This explanation is of another picture or passage; explain this pair first, and measure that."
        )
    answer = explanation.prediction.label
    # What is not signed, as attention, is no evidence against: its strongest goes first, whatever the answer.
    values = {
        n: (s.method.kind, s.values if s.method.signed or answer == "YES" else -s.values)
        for n, s in shown(explanation).items()
    }
    words = {n: v for n, (kind, v) in values.items() if kind == "words"}
    maps = {n: v for n, (kind, v) in values.items() if kind == "regions"}
    return of_words(question, words, answer) | (of_regions(question, maps, answer) if maps else {})
