"""What people read and look at: answers and explanations -> HTML and pictures. No model runs here."""

from collections import Counter
from dataclasses import asdict
from html import escape
from typing import Any

import numpy as np
import torch

from musti_model import Explanation, MustiPipeline, Prediction, Sentence
from musti_model.figures import legend_html, overlay, scale_of, signed_scale_of, words_html
from musti_model.frames import to_frame
from musti_model.methods import BEST, method
from musti_model.results import Evidence, Faithfulness

from .language import later, number, say

BRANCH_NAMES = {"vit": "ViT", "cnn": "CNN", "resnet": "ResNet", "swin": "Swin"}
VIEW_NAMES = {"rollout": later("attention rollout"), "gradcam": "Grad-CAM"}
WHOLE = "whole model"
THOROUGH = later(
    "Each word is struck out and read alone. Parts of the picture are hidden at random, and parts are looked at alone and enlarged. The numbers are what that does "
    "to the logit. They tell what this model's answer hangs on, not whether the model is right."
)
SPARED = later(
    "Each word is struck out (in a long passage those that hardly count a few at a time) and read alone. Parts of the picture are hidden at random, and parts are looked at "
    "alone and enlarged. The numbers are what that does to the logit. They tell what this model's answer hangs on, not whether the model is right."
)
QUICK = later(
    "These weights are too large for the best methods on this machine: words and regions come from attention weighted by gradients, which is less "
    "faithful, and their numbers are shares of the vote."
)
STAYS = 0.93  # mean probability of the answer while parts are taken away at random, from which no order could do much
CLOSE = 0.05  # distance from the threshold within which an answer is called close


def branch_name(name: str) -> str:
    """The name of a branch as people read it."""
    return BRANCH_NAMES.get(name, name)


def weights_banner(pipe: MustiPipeline, problem: str | None) -> str:
    """Which weights run, their measured score, and the caveat."""
    try:
        test = pipe.card["test"]
        score = say("F1-macro {score:.2f} on {pairs} held-out test pairs.", score=float(test["f1_macro"]), pairs=int(test["pairs"]))
    except (KeyError, TypeError, ValueError):  # others may have written the card
        score = say("No measured score is stored with these weights.")
    caveat = escape(say(str(pipe.card.get("caveat", ""))))
    warning = f'<p class="banner warning" role="alert">{escape(say(problem))}</p>' if problem else ""
    return (
        f'{warning}<div class="banner" id="weights"><strong>{say("Weights:")}</strong> {escape(pipe.name)} '
        f"({escape(pipe.revision)}). {score} {caveat}</div>"
    )


def verdict_html(prediction: Prediction) -> str:
    """The answer in a person's words; under it the probability against the threshold, what was seen and read, the notices."""
    yes, p, t = prediction.label == "YES", prediction.probability, prediction.threshold
    above = say("Probability of YES <strong>{p:.3f}</strong>, above the threshold {t:.3f}.", p=p, t=t)
    below = say("Probability of YES <strong>{p:.3f}</strong>, below the threshold {t:.3f}.", p=p, t=t)
    compares = say("The model compares the things that picture and passage show and name, not whether the passage says that they smell.")
    notices = "".join(f'<div class="notice">{escape(say(n))}</div>' for n in prediction.notices)
    return (
        f'<div class="verdict"><h2>{headline(prediction)}</h2><p class="small">{above if yes else below} {compares}</p>{meter_html(p, t, say("threshold"))}'
        f"{naming_html(prediction)}{notices}</div>"
    )


def headline(prediction: Prediction) -> str:
    """The answer in one line, with its reason where the weights can name things."""
    yes, seen, read = prediction.label == "YES", [n for n, _ in prediction.objects_in_picture], {n for n, _ in prediction.objects_in_passage}
    shared = [n for n in seen if n in read]
    if prediction.unsure:
        told = say("Cannot tell: I read none of the things I know in the passage.") if not read else say("Cannot tell: I am not sure what the picture shows.")
    elif yes and shared:
        told = _shared(prediction, seen[: seen.index(shared[0]) + 1])
    elif not yes and seen and read and seen[0] not in read:
        told = say("NO: the picture shows {seen}; the passage speaks of {read}.", seen=_things(seen[:1]), read=_things(sorted(read)))
    else:
        told = say("YES: the same smell") if yes else say("NO: not the same smell")
    return say("Only just: {answer}", answer=told) if abs(prediction.probability - prediction.threshold) < CLOSE and not prediction.unsure else told


def _shared(prediction: Prediction, guesses: list[str]) -> str:
    """A YES for the thing that the passage names, the last of the guesses at the picture; what is no more than a guess is told as one."""
    first, thing = _things(guesses[:1]), _things(guesses[-1:])
    if prediction.doubtful:
        return say("YES: the picture perhaps shows {seen}; the passage speaks of {read}.", seen=_things(guesses), read=thing)
    if len(guesses) > 1:
        return say("YES: the picture shows {seen}, perhaps also {thing}, of which the passage speaks.", seen=first, thing=thing)
    return say("YES: both point to {thing}.", thing=thing)


def _things(names: list[str], most: int = 3) -> str:
    """Objects in a list, not too long."""
    return escape(", ".join(say("“{thing}”", thing=object_name(n)) for n in names[:most]) + (" …" if len(names) > most else ""))


def meter_html(probability: float, threshold: float, mark: str = "") -> str:
    """A bar of the probability with the threshold on it. mark: what stands under the threshold."""
    told = say("probability {p:.3f}, threshold {t:.3f}", p=probability, t=threshold)
    under = f"<span>{mark}</span>" if mark else ""
    return (
        f'<div class="meter" role="img" aria-label="{told}"><div class="fill" style="width:{probability:.1%}"></div>'
        f'<div class="mark" style="left:{threshold:.1%}">{under}</div></div>'
    )


def naming_html(prediction: Prediction) -> str:
    """What the model sees in the picture and reads in the passage; "" for weights that cannot name."""
    if not prediction.objects_in_picture:
        return ""
    seen = ", ".join(f"{escape(object_name(n))} ({v:.0%})" for n, v in prediction.objects_in_picture)
    counts = Counter((n, w.lower()) for n, w in prediction.objects_in_passage)
    written = {w.lower(): w for _, w in reversed(prediction.objects_in_passage)}  # as it stands first
    read = ", ".join(f"{escape(written[w])} → {escape(object_name(n))}" + (f" (×{k})" if k > 1 else "") for (n, w), k in counts.most_common())
    sides = say("In the picture it would see: {seen}.", seen=seen), say("In the passage it reads: {read}.", read=read or say("none of its objects"))
    return f"<p>{'<br>'.join(sides)}</p>"


def object_name(name: str) -> str:
    """An object of the weights as people read it."""
    return say(name.replace("_", " "))


def votes_html(prediction: Prediction, temperature: float) -> str:
    """How the cosines became the logit."""
    rows = "".join(
        f"<tr><td>{escape(branch_name(n))}</td><td>{number(s, '+.3f')}</td><td>{number(prediction.votes[n], '+.3f')}</td></tr>"
        for n, s in prediction.similarities.items()
    )
    heads = "".join(f"<th>{h}</th>" for h in (say("branch"), say("cosine text/image"), say("its vote")))
    told = say("Probability = sigmoid(logit / temperature {temperature:.2f}).", temperature=temperature)
    return (
        f'<div class="scroll"><table class="votes"><thead><tr>{heads}</tr></thead>'
        f"<tbody>{rows}<tr><td>{say('constant')}</td><td></td><td>{number(prediction.vote_bias, '+.3f')}</td></tr>"
        f"<tr><td><strong>{say('logit (sum)')}</strong></td><td></td><td><strong>{number(prediction.logit, '+.3f')}</strong></td></tr></tbody></table></div>"
        f"<p>{told if temperature != 1 else say('Probability = sigmoid(logit).')}</p>"
    )


def attention_html(explanation: Explanation, branch: str, stretch: bool) -> str:
    """The passage coloured by the text encoder's attention."""
    return coloured_words(explanation, explanation.word_attention[branch], say("attention of the summary token"), stretch)


def coloured_words(explanation: Explanation, values: list[float], label: str, stretch: bool) -> str:
    """The passage with its words coloured by ``values``."""
    scale = scale_of(np.asarray(values), stretch) if values else None
    return words_html(explanation.passage, explanation.word_spans, values, label, scale)


def map_figure(explanation: Explanation, view: str | None, head: int, opacity: float, stretch: bool) -> tuple[Any, str]:
    """The overlay of one view, and its legend. ``head`` counts from 1 and matters to the view of one head only."""
    kind, _, branch = (view or "").partition(":")
    if kind == "heads":
        head = min(max(int(head), 1), len(explanation.heads[branch]))
        values, label = explanation.head_map(branch, head - 1), say("class-token attention of head {head}, last layer", head=head)
    elif view in explanation.maps:
        values, label = explanation.maps[view], say(VIEW_NAMES[kind])
    else:
        told = say("There is no such map: these weights have no gate, or their image tokens have no place in the picture.")
        return None, f"<p>{told}</p>"
    scale = scale_of(values, stretch)
    return overlay(explanation.image, values, opacity, scale), legend_html(*scale, label)


def view_choices(pipe: MustiPipeline) -> list[tuple[str, str]]:
    """(label, view) of every map that these weights can have."""
    choices = []
    for name, branch in pipe.model.branches.items():
        if branch.is_vit:
            shown = branch_name(name)
            choices += [
                (Sentence("{branch}: attention rollout", branch=shown), f"rollout:{name}"),
                (Sentence("{branch}: one head, last layer", branch=shown), f"heads:{name}"),
            ]
        elif not branch.is_swin:
            choices.append((f"{branch_name(name)}: Grad-CAM", f"gradcam:{name}"))
    return choices


# Evidence and the gate's effect -----------------------------------------------------------------------------------------------------


def part_of(explanation: Explanation, branch: str) -> Evidence:
    """Evidence of a branch, or of the WHOLE model."""
    return explanation.evidence if branch == WHOLE else explanation.evidence.branches[branch]


def evidence_html(explanation: Explanation, branch: str) -> str:
    """The passage coloured by what speaks for and against YES, the words that weigh most, and what a NO lacks."""
    evidence = part_of(explanation, branch)
    label = unit_of(evidence)
    words = words_html(explanation.passage, explanation.word_spans, evidence.words, label, signed=True)
    return strongest(explanation.words, evidence.words) + words + missing_html(explanation.prediction, explanation.evidence)


def unit_of(evidence: Evidence) -> str:
    """What the numbers of evidence are."""
    if method("words", evidence.methods["words"]).unit == "share of the vote":
        return say("share of the vote for (+) or against (−) YES")
    return say("logit for (+) or against (−) YES")


def strongest(words: list[str], values: list[float], many: int = 3, least: float = 0.05) -> str:
    """The words that weigh most on either side, in a sentence; signs, and those under ``least`` (logit), are left out."""
    order = sorted((i for i, w in enumerate(words) if any(c.isalnum() for c in w)), key=lambda i: -values[i])
    sides = []
    for sign, title, rows in ((1, say("For YES:"), order), (-1, say("Against:"), order[::-1])):
        strongest_of: dict[str, int] = {}  # of a word that stands twice, where it weighs more
        for i in rows:
            strongest_of.setdefault(words[i].lower(), i)
        rows = list(strongest_of.values())
        named = [f"{escape(words[i])} ({number(values[i], '+.2f')})" for i in rows[:many] if sign * values[i] >= least]
        sides.append(f"<strong>{title}</strong> {', '.join(named) or say('no word weighs much')}.")
    return f"<p>{' '.join(sides)}</p>"


def missing_html(prediction: Prediction, evidence: Evidence) -> str:
    """Why NO: what the passage would have had to name, by trying it."""
    if prediction.label == "YES" or prediction.unsure or not evidence.missing:
        return ""
    tried = ", ".join(f"{escape(o.replace('_', ' '))} {number(p, '.3f')}" for o, p in evidence.missing)  # the very words that were put there
    read = sorted({n for n, _ in prediction.objects_in_passage})
    seen = escape(object_name(prediction.objects_in_picture[0][0]))
    takes = say(
        "The model takes the picture for {seen}, while the passage speaks of {read}.", seen=seen, read=escape(", ".join(map(object_name, read)))
    )
    if prediction.objects_in_picture[0][0] in read:
        takes = say("The model names {seen} on both sides, yet what it makes of the whole passage and the whole picture is too far apart.", seen=seen)
    needed = say(
        "Put before the passage, these English words would give the probability of YES: {tried} (threshold {threshold:.3f}).",
        tried=tried, threshold=prediction.threshold,
    )  # fmt: skip
    return f'<p class="missing"><strong>{say("Why NO?")}</strong> {takes} {needed}</p>'


def evidence_figure(explanation: Explanation, branch: str, opacity: float) -> tuple[Any, str]:
    """The picture with regions for and against, and its legend."""
    evidence = part_of(explanation, branch)
    values = evidence.map
    if values is None:
        return None, f"<p>{say('The image tokens of these weights have no place in the picture, so there is no map.')}</p>"
    scale = signed_scale_of(values)
    label = unit_of(evidence)
    if method("regions", evidence.methods["regions"]).unit == "logit":
        label = say("logit for (+) or against (−) YES, per cell of an 8 × 8 grid")
    legend = legend_html(*scale, label, signed=True)
    return overlay(explanation.image, values, opacity, scale, signed=True), legend


def faithfulness_html(answer: str, measured: list[tuple[str, str, Faithfulness]]) -> str:
    """How faithful these very explanations are. answer: "YES" or "NO"; measured: (title, "words" or "regions", measure); "" where nothing is."""
    told = {
        "words": later(
            "With the strongest words struck out first, the mean probability of {answer} on the way is {deletion:.2f}; in random order it is "
            "{random_deletion:.2f}. Put back first, {insertion:.2f} against {random_insertion:.2f}."
        ),
        "regions": later(
            "With the strongest regions blanked out first, the mean probability of {answer} on the way is {deletion:.2f}; in random order it is "
            "{random_deletion:.2f}. Put back first, {insertion:.2f} against {random_insertion:.2f}."
        ),
    }
    items = "".join(
        f"<li><strong>{judgement(title, f)}</strong> {say(told[kind], answer=say(answer), **asdict(f))}</li>" for title, kind, f in measured
    )
    return items and f'<div class="faithful"><p>{say("Measured for this pair:")}</p><ul>{items}</ul></div>'


def judged_parts(answer: str, measured: dict[str, Faithfulness], part: str, branch: str, view: str | None, word_branch: str) -> tuple[str, ...]:
    """Beside each overlay, how faithful that very one is: evidence, the gate's effect, attention map, attention of words. part, branch, view, word_branch: what the page shows of each."""
    of = "" if part == WHOLE else f":{part}"
    rows = (
        [(later("Words"), "words", f"words{of}"), (later("Regions"), "regions", f"regions{of}")],
        [(later("This map"), "regions", f"effect:{branch}")],
        [(later("This map"), "regions", view or "")],
        [(later("Words"), "words", f"attention:{word_branch}")],
    )
    return tuple(faithfulness_html(answer, [(title, of_what, measured[name]) for title, of_what, name in row if name in measured]) for row in rows)


def score_html(measured: dict[str, Any] | None, weights: str) -> str:
    """How the methods that the page shows did on other pairs; "" where these weights were not measured. measured: as ``benchmarks.faithfulness``
    writes it."""
    if measured is None or measured["weights"] != weights:
        return ""
    words, regions = measured["words"][BEST["words"].name], measured["regions"][BEST["regions"].name]
    told = say(
        "Measured on {pairs} other pairs: striking out the strongest words first beats random orders on {words:.0%} of them, blanking out the strongest "
        "regions on {regions:.0%}; the top word names the shared object on {pointing:.0%}; of four pictures the right one gets {grid:.0%} of the evidence.",
        pairs=measured["pairs"], words=words["better"], regions=regions["better"], pointing=words["pointing"], grid=regions["grid"],
    )  # fmt: skip
    return f"<p>{told}</p>"


def judgement(title: str, f: Faithfulness) -> str:
    """An explanation's faithfulness in a few words."""
    better = f.random_deletion - f.deletion
    judged = later("{what}: faithful.") if better > 0.05 else later("{what}: hardly better than chance.") if better > 0 else later("{what}: no better than chance.")
    if better == 0 or (f.random_deletion > STAYS and better <= 0.05):
        judged = later("{what}: cannot be told, since the answer hardly changes in whatever order they are taken away.")
    return say(judged, what=say(title))


def effect_html(explanation: Explanation, branch: str) -> str:
    """What the gate changed, word by word."""
    effect = explanation.gate_effect.get(branch)
    if effect is None:
        return f"<p>{say('These weights have no gate: the picture does not touch the text before the cosine.')}</p>"
    told = say(
        "With the gate as learned, the {branch} branch's vote is <strong>{total:+.3f}</strong> from what it is with the gate shut. Word by word (and "
        "{rest:+.3f} at places that are no words); the parts miss the whole by {error:.2%}:",
        branch=escape(branch_name(branch)), total=effect.total, rest=effect.rest, error=effect.error,
    )  # fmt: skip
    label = say("change of the logit by the gate")
    return f"<p>{told}</p>" + words_html(explanation.passage, explanation.word_spans, effect.words, label, signed=True)


def effect_figure(explanation: Explanation, branch: str, opacity: float) -> tuple[Any, str]:
    """The picture with what each patch changed through the gate, and its legend."""
    effect = explanation.gate_effect.get(branch)
    if effect is None or effect.patches is None:
        return None, ""
    values = to_frame(torch.from_numpy(effect.patches), *explanation.image.size)
    scale = signed_scale_of(values)
    return overlay(explanation.image, values, opacity, scale, signed=True), legend_html(*scale, say("change of the logit by each patch through the gate"), signed=True)
