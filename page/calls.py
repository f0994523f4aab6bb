"""What the page asks of the model. Errors become sentences here: a borrowed GPU hands on no other exception than gr.Error, and nothing large."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gradio as gr

from musti_model import Explanation, InputError, MustiPipeline, Prediction, WeightsError
from musti_model.faithfulness import Faithfulness
from musti_model.what_if import Alteration

from .batch import Pictures, answered
from .language import in_language, language, say
from .many import ranked

PAGE_SIDE = 1000  # px; the page draws on a copy of the picture no larger than this


def sentence(function: Callable[[], Any]) -> Any:
    """Calls a function; whatever it raises becomes a sentence on the page."""
    try:
        return function()
    except gr.Error:
        raise
    except (InputError, WeightsError) as error:
        raise gr.Error(say(error.args[0]), print_exception=False) from error
    except Exception as error:  # no memory left on the device, say: the log tells more than the page should
        logging.getLogger(__name__).exception("a question could not be answered")
        raise gr.Error(say("This pair could not be answered; try a smaller picture or another one."), print_exception=False) from error


@dataclass(frozen=True)
class Calls:
    """The pipeline, and its methods as the page calls them: on the borrowed GPU where there is one, errors as sentences."""

    pipe: MustiPipeline
    predict: Callable[[str | None, str], Prediction]
    explain: Callable[[str | None, str], Explanation]
    measure: Callable[[str, str, Explanation], dict[str, Faithfulness]]
    alter: Callable[[str, str, Alteration], float]
    rank: Callable[[list[str], list[str]], list[tuple[int, Prediction]]]
    answer_many: Callable[[list, Pictures], list[dict[str, Any]]]


def calls_of(pipe: MustiPipeline, on_gpu: Callable[[Callable], Callable]) -> Calls:
    """on_gpu: marks a function that runs on a borrowed GPU. The functions hold the pipeline instead of taking it: arguments are sent there."""

    def picture(image: str | None) -> str:
        if not image:
            raise InputError("Choose a picture first.")
        return image

    def texts(passages: Any) -> list[str]:
        if not isinstance(passages, list) or not all(isinstance(p, str) for p in passages):
            raise InputError("passages is a list of texts.")
        return passages

    def lent(function: Callable) -> Callable:
        borrowed = on_gpu(lambda tag, *given: in_language(tag, lambda: sentence(lambda: function(*given))))
        return lambda *given: borrowed(language(), *given)  # the process of a borrowed GPU does not know the visitor

    return Calls(
        pipe,
        predict=lent(lambda image, passage: pipe(picture(image), passage)),
        explain=lent(lambda image, passage: pipe.explain(picture(image), passage).fit(PAGE_SIDE)),
        measure=lent(lambda image, passage, explanation: pipe.faithfulness(image, passage, explanation)),
        alter=lent(lambda image, passage, alteration: pipe.what_if(image, passage, alteration)),
        rank=lent(lambda images, passages: ranked(pipe, images or [], texts(passages))),
        answer_many=lent(lambda items, pictures: answered(pipe, items, pictures)),
    )
