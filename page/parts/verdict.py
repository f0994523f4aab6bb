"""The answer: in a person's words, against its threshold, with what was seen and read."""

from collections import Counter

import gradio as gr

from musti_model import Prediction, Sentence

from ..language import later, say
from ..markup import alert, paragraph, render
from ..names import object_name

CLOSE = 0.05  # distance from the threshold within which an answer is called close
WAITING = later("Press “Compare” for the answer.")


class Verdict:
    """The answer, or the sentence that stands in its place."""

    def __init__(self) -> None:
        self.html = gr.HTML(Sentence("The answer appears here."), elem_id="verdict")

    def waiting(self) -> str:
        """Of a question that was not asked yet."""
        return paragraph(WAITING)

    def failed(self, error: gr.Error) -> str:
        """A sentence that stays where the answer would stand; a toast would be gone before it is acted on."""
        return alert(error)


def verdict_html(prediction: Prediction) -> str:
    """The answer in a person's words; under it the probability against the threshold, what was seen and read, the
    notices."""
    return render(
        "verdict.html",
        yes=prediction.label == "YES",
        p=prediction.probability,
        t=prediction.threshold,
        headline=headline(prediction),
        seen=seen_in(prediction),
        read=read_in(prediction) or say("none of its objects"),
        notices=prediction.notices,
    )


def headline(prediction: Prediction) -> str:
    """The answer in one line, with its reason where the weights can name things; plain text."""
    yes, seen, read = (
        prediction.label == "YES",
        [n for n, _ in prediction.objects_in_picture],
        {n for n, _ in prediction.objects_in_passage},
    )
    shared = [n for n in seen if n in read]
    if prediction.unsure and not read:
        told = _unread(prediction)
    elif prediction.unsure:
        told = say("Cannot tell: I am not sure what the picture shows.")
    elif yes and shared:
        told = _shared(prediction, seen[: seen.index(shared[0]) + 1])
    elif not yes and seen and read and seen[0] not in read:
        told = say(
            "NO: I see {seen} in the picture; the passage speaks of {read}.",
            seen=_things(seen[:1]),
            read=_things(sorted(read)),
        )
    else:
        told = say("YES: picture and passage go together") if yes else say("NO: not the same smell")
    return (
        say("Only just {answer}", answer=told)
        if abs(prediction.probability - prediction.threshold) < CLOSE and not prediction.unsure
        else told
    )


def _unread(prediction: Prediction) -> str:
    """For a passage that names nothing known: it may still have brought picture and passage close by a name that the
    weights were not taught to read."""
    seen = prediction.objects_in_picture
    if prediction.clear and seen and not prediction.doubtful:
        return say(
            "Perhaps: I see {seen} in the picture, and the passage may call it by a name that I cannot read.",
            seen=_things([seen[0][0]]),
        )
    return say("Cannot tell: I read none of the things I know in the passage.")


def _shared(prediction: Prediction, guesses: list[str]) -> str:
    """A YES for the thing that the passage names, the last of the guesses at the picture; what is no more than a guess
    is told as one."""
    first, thing = _things(guesses[:1]), _things(guesses[-1:])
    if prediction.doubtful:
        return say(
            "YES: the picture perhaps shows {seen}; the passage speaks of {read}.", seen=_things(guesses), read=thing
        )
    if len(guesses) > 1:
        return say(
            "YES: I see {seen} in the picture, perhaps also {thing}, of which the passage speaks.",
            seen=first,
            thing=thing,
        )
    return say("YES: both point to {thing}.", thing=thing)


def _things(names: list[str], most: int = 3) -> str:
    """Objects in a list, not too long."""
    return ", ".join(say("“{thing}”", thing=object_name(n)) for n in names[:most]) + (" …" if len(names) > most else "")


def seen_in(prediction: Prediction) -> str:
    """What the model sees in the picture, the first guess and what does not round to 0 %; "" for weights that cannot
    name."""
    guesses = [(n, f"{v:.0%}") for n, v in prediction.objects_in_picture]
    return ", ".join(f"{object_name(n)} ({share})" for at, (n, share) in enumerate(guesses) if not at or share != "0%")


def read_in(prediction: Prediction) -> str:
    """What the model reads in the passage."""
    counts = Counter((n, w.lower()) for n, w in prediction.objects_in_passage)
    written = {w.lower(): w for _, w in reversed(prediction.objects_in_passage)}  # as it stands first
    return ", ".join(
        f"{written[w]} → {object_name(n)}" + (f" (×{k})" if k > 1 else "") for (n, w), k in counts.most_common()
    )
