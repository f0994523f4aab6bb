"""Which weights answer: one sentence for everybody, and the numbers for whoever asks."""

from html import escape

from musti_model import MustiPipeline
from musti_model.weights import EMBEDDED

from .language import say


def weights_banner(pipe: MustiPipeline, problem: str | None) -> str:
    """What the weights are in one sentence, with a link to their card. problem: why they are not those asked for."""
    if pipe.name == EMBEDDED:
        told = say("A small model that comes with this page answers here, not the published MUSTI model.")
    else:
        told = say("The model {name} answers here.", name=escape(pipe.name))
    warning = f'<p class="banner warning" role="alert">{escape(say(problem))}</p>' if problem else ""
    return f'{warning}<div class="banner" id="weights">{told} <a href="#card">{say("About these weights")}</a></div>'


def weights_html(pipe: MustiPipeline) -> str:
    """Name and revision of the weights, their measured score, and the caveat."""
    try:
        test = pipe.card["test"]
        score = say(
            "F1-macro {score:.2f} on {pairs} held-out test pairs.",
            score=float(test["f1_macro"]),
            pairs=int(test["pairs"]),
        )
    except (KeyError, TypeError, ValueError):  # others may have written the card
        score = say("No measured score is stored with these weights.")
    caveat = escape(say(str(pipe.card.get("caveat", ""))))
    return f"<p>{escape(pipe.name)} ({escape(pipe.revision)}). {score} {caveat}</p>"
