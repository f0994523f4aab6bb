"""What the page asks of the model. Errors become sentences here: a borrowed GPU hands on no other exception than
gr.Error, and nothing large."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from musti_model import Alteration, Explanation, InputError, MustiPipeline, Prediction
from musti_model.processing import open_image
from musti_model.question import Question
from musti_model.reading import clean_passage
from musti_model.results import Faithfulness

from .answers import Item, answered
from .archive import PictureZip
from .language import in_language, language, later, refusing
from .recent import Recent
from .uploads import GONE

PAGE_SIDE = 1000  # px; the page draws on a copy of the picture no larger than this
MOST_PASSAGES, MOST_PICTURES = 50, 20  # ranked at a time
Result = TypeVar("Result")


def ranked(pipe: MustiPipeline, pictures: list[str], passages: list[str]) -> list[tuple[int, Prediction]]:
    """One picture with passages, or pictures with one passage: (index, answer), best first.

    Raises: InputError for anything else, for too many, and, naming its place in the list, for one that cannot be read.
    """
    if len(pictures) != 1 and len(passages) != 1:
        raise InputError("Rank takes one picture with passages, or pictures with one passage.")
    if not pictures:
        raise InputError("Choose a picture first.")
    if not passages:
        raise InputError("There is no passage to rank; give at least one.")
    if len(passages) > MOST_PASSAGES or len(pictures) > MOST_PICTURES:
        raise InputError(
            "At most {passages} passages or {pictures} pictures at a time.",
            passages=MOST_PASSAGES,
            pictures=MOST_PICTURES,
        )
    if len(pictures) == 1:
        told = later("Passage {number}: {problem}")
        return pipe.rank(
            pictures[0],
            [_named(told, number, partial(clean_passage, text)) for number, text in enumerate(passages, start=1)],
        )
    # opened and let go: twenty large pictures at once would fill the memory
    for number, path in enumerate(pictures, start=1):
        _named(later("Picture {number}: {problem}"), f"{number} ({Path(path).name[:60]})", partial(open_image, path))
    return pipe.rank(pictures, passages[0])


def _named(told: str, number: int | str, function: Callable[[], Result]) -> Result:
    try:
        return function()
    except InputError as error:
        raise InputError(told, number=number, problem=error.args[0]) from error


@dataclass(frozen=True)
class Calls:
    """The pipeline, and its methods as the page calls them: on the borrowed GPU where there is one, errors as
    sentences.

    Calls of one lane take turns. There are two, so that an explanation of a second holds up no answer of some
    milliseconds: on two cores a quick answer takes a quarter longer beside an explanation, instead of waiting for the
    whole of it.
    """

    pipe: MustiPipeline
    predict: Callable[[str | None, str], Prediction]
    look: Callable[[str | None, str], Explanation]
    explain: Callable[[str | None, str], Explanation]
    measure: Callable[[str, str, Explanation], dict[str, Faithfulness]]
    alter: Callable[[str, str, Alteration], float]
    rank: Callable[[list[str], list[str]], list[tuple[int, Prediction]]]
    answer_many: Callable[[list[Item], PictureZip], list[dict[str, Any]]]


class Lanes(NamedTuple):
    """Where calls take turns: a thread for each lane, and not Gradio's forty, each of which would get threads of
    PyTorch and memory of its own."""

    quick: ThreadPoolExecutor
    slow: ThreadPoolExecutor


def new_lanes() -> Lanes:
    """Two free lanes. Pages that run beside each other share them."""
    return Lanes(*(ThreadPoolExecutor(1, thread_name_prefix=name) for name in Lanes._fields))


def calls_of(pipe: MustiPipeline, on_gpu: Callable[[Callable[..., Any]], Callable[..., Any]], lanes: Lanes) -> Calls:
    """on_gpu: marks a function that runs on a borrowed GPU. The functions hold the pipeline instead of taking it:
    arguments are sent there.

    Visitors take turns on the lanes, whichever weights they ask; a batch lets others in between its parts. A question
    is opened, tokenised and encoded once, and explained and measured once, for all visitors who ask it (the examples,
    a class of students).
    """
    quick, slow = lanes
    questions, explanations, measurements = Recent[Question](), Recent[Explanation](), Recent[dict[str, Faithfulness]]()

    def picture(image: str | None) -> str:
        if not image:
            raise InputError("Choose a picture first.")
        if not Path(image).is_file():
            raise InputError(GONE)
        return image

    def asked(image: str | None, passage: str) -> Question:
        path = picture(image)
        return questions(path, passage, lambda: pipe.ask(path, passage).fit(PAGE_SIDE))

    def explained(image: str | None, passage: str) -> Explanation:
        return explanations(picture(image), passage, lambda: pipe.explain(asked(image, passage)))

    def measured(image: str, passage: str, explanation: Explanation) -> dict[str, Faithfulness]:
        def measure() -> dict[str, Faithfulness]:
            return pipe.faithfulness(asked(image, passage), explanation=explanation)

        return measurements(picture(image), passage, measure, explanation.asked)

    def texts(passages: Any) -> list[str]:
        if not isinstance(passages, list) or not all(isinstance(p, str) for p in passages):
            raise InputError("passages is a list of texts.")
        return passages

    def in_turn(lane: ThreadPoolExecutor, function: Callable[..., Any]) -> Callable[..., Any]:
        borrowed = on_gpu(lambda tag, *given: in_language(tag, lambda: refusing(lambda: function(*given))))

        def call(*given: Any) -> Any:
            # The process of a borrowed GPU does not know the visitor's language; who lends it asks the context which
            # visitor it is.
            return lane.submit(copy_context().run, borrowed, language(), *given).result()

        return call

    return Calls(
        pipe,
        predict=in_turn(quick, lambda image, passage: pipe(asked(image, passage))),
        look=in_turn(quick, lambda image, passage: pipe.explain(asked(image, passage), evidence=False)),
        explain=in_turn(slow, explained),
        measure=in_turn(slow, measured),
        alter=in_turn(
            quick, lambda image, passage, alteration: pipe.what_if(asked(image, passage), alteration=alteration)
        ),
        rank=in_turn(slow, lambda images, passages: ranked(pipe, [picture(i) for i in images or []], texts(passages))),
        answer_many=in_turn(slow, lambda items, pictures: answered(pipe, items, pictures)),
    )
