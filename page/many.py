"""The tab "Compare many": one picture with many passages, one passage with many pictures, one passage in several languages; ranked."""

from collections.abc import Callable
from html import escape
from typing import Any

import gradio as gr

from musti_model import Explanation, InputError, MustiPipeline, Prediction, Sentence
from musti_model.processing import open_image

from .board import data_url, literal
from .language import later, say
from .views import WHOLE, evidence_figure, evidence_html

MOST_PASSAGES, MOST_PICTURES = 50, 20
LANGUAGES = {"en": "English", "de": "German", "fr": "French", "it": "Italian", "sl": "Slovenian"}
MODES = [("One picture, many passages", "passages"), ("One passage, many pictures", "pictures"), ("One passage in several languages", "languages")]
HINT = Sentence("“Why?” shows the evidence of a row; that of the row before stays beside it.")
TABLE = """{{#if value.length}}<div class="scroll"><table class="ranking"><thead><tr>{{#each value.[0].heads}}<th>{{this}}</th>{{/each}}
<th></th></tr></thead><tbody>{{#each value}}<tr><td>{{rank}}</td><td>{{probability}}<div class="meter" aria-hidden="true"><div class="fill"
 style="width:{{width}}"></div><div class="mark" style="left:{{mark}}"></div></div></td><td>{{answer}}</td><td>{{about}}</td>
<td><button type="button" data-row="{{@index}}" aria-label="{{why}} {{about}}">{{why}}</button></td></tr>{{/each}}</tbody></table></div>{{/if}}"""
HEADS = (later("rank"), later("probability of YES"), later("answer"), later("about"))
ALTS = (
    "The picture of the row chosen last, regions for YES in orange and against it in purple",
    "The picture of the row before, regions for YES in orange and against it in purple",
)
CHOOSE = """element.addEventListener("click", (e) => {
  const b = e.target.closest("button[data-row]");
  if (b) trigger("select", {row: +b.dataset.row});
});"""


def split_passages(text: str) -> list[str]:
    """Passages between empty lines; without an empty line each line is one. Raises InputError for none, or for too many."""
    blocks = [b.strip() for b in text.replace("\r\n", "\n").split("\n\n")] if "\n\n" in text.strip() else text.split("\n")
    passages = [b.strip() for b in blocks if b.strip()]
    if not passages:
        raise InputError("There is no passage; paste some, with an empty line between them.")
    if len(passages) > MOST_PASSAGES:
        raise InputError("There are {count} passages; {most} at a time is the limit.", count=len(passages), most=MOST_PASSAGES)
    return passages


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
        raise InputError("At most {passages} passages or {pictures} pictures at a time.", passages=MOST_PASSAGES, pictures=MOST_PICTURES)
    if len(pictures) == 1:
        for number, text in enumerate(passages, start=1):
            _named(later("Passage {number}: {problem}"), number, lambda text=text: pipe.processor.passages([text]))
        return pipe.rank(pictures[0], passages)
    for number, path in enumerate(pictures, start=1):  # opened and let go: twenty large pictures at once would fill the memory
        _named(later("Picture {number}: {problem}"), number, lambda path=path: open_image(path))
    return pipe.rank(pictures, passages[0])


def _named(told: str, number: int, function: Callable[[], Any]) -> Any:
    try:
        return function()
    except InputError as error:
        raise InputError(told, number=number, problem=error.args[0]) from error


def table_rows(answers: list[tuple[int, Prediction]], names: list[str]) -> list[dict[str, Any]]:
    """What ``TABLE`` shows of each answer, best first."""
    told = {"heads": [say(h) for h in HEADS], "why": say("Why?")}
    return [
        told
        | {
            "rank": rank, "probability": f"{a.probability:.3f}", "width": f"{a.probability:.1%}", "mark": f"{a.threshold:.1%}",
            "answer": say("cannot tell") if a.unsure else say(a.label), "about": literal(names[i]),
        }
        for rank, (i, a) in enumerate(answers, start=1)
    ]  # fmt: skip


def short(text: str, length: int = 90) -> str:
    """The beginning of a passage, on one line."""
    line = " ".join(text.split())
    return line if len(line) <= length else line[: length - 1] + "…"


def card_html(explanation: Explanation, name: str) -> str:
    """One result: its picture small, its answer, its words for and against."""
    p = explanation.prediction
    picture = f'<img src="{data_url(explanation.image, 160)}" alt="{say("the picture of this row")}">'
    told = say("{answer}, probability of YES <strong>{p:.3f}</strong>", answer=say("cannot tell") if p.unsure else say(p.label), p=p.probability)
    title = f"<h3>{escape(name)}</h3><p>{told}</p>"
    return f'<div class="card">{picture}<div>{title}{evidence_html(explanation, WHOLE)}</div></div>'


Rank = Callable[[list[str], list[str]], list[tuple[int, Prediction]]]


def many_tab(image_input: Callable[..., Any], rank: Rank, explain: Callable[[str, str], Explanation], sentence: Callable) -> None:
    """Builds the tab. rank, explain: of the page, with their errors as sentences; sentence: calls a function, its errors become such."""
    mode = gr.Radio(MODES, value="passages", label="Compare", elem_id="mode")
    with gr.Row():
        with gr.Column(min_width=300):
            picture = image_input(type="filepath", image_mode=None, sources=["upload", "clipboard"], label="Picture", height=240, elem_id="many-picture")
            pictures = gr.File(
                file_count="multiple", file_types=["image"], label=Sentence("Pictures (at most {most})", most=MOST_PICTURES), visible=False, elem_id="many-pictures"
            )
        with gr.Column(min_width=300):
            texts = gr.Textbox(
                label=Sentence("Passages (at most {most}), an empty line between them", most=MOST_PASSAGES), lines=8, max_lines=16, elem_id="many-passages"
            )
            text = gr.Textbox(label="Passage", lines=5, visible=False, elem_id="one-passage")
            versions = [gr.Textbox(label=name, lines=2, visible=False, elem_id=f"passage-{tag}") for tag, name in LANGUAGES.items()]
    button = gr.Button("Rank", variant="primary", elem_id="rank")
    table = gr.HTML([], html_template=TABLE, js_on_load=CHOOSE, elem_id="ranking")
    told = gr.Markdown(HINT, elem_id="many-told", elem_classes="live")
    cards, maps = [], []
    with gr.Row():
        for number, alt in enumerate(ALTS, start=1):
            with gr.Column(min_width=320):
                cards.append(gr.HTML(elem_id=f"card-{number}"))
                maps.append(
                    gr.Image(label="Regions for and against", interactive=False, buttons=["download"], visible=False, elem_id=f"card-map-{number}",
                             alt_text=alt)
                )  # fmt: skip
    state = gr.State(None, time_to_live=3600)  # the questions by rank, and the rows chosen

    def switch(chosen: str) -> list[Any]:
        return [
            gr.update(visible=chosen != "pictures"), gr.update(visible=chosen == "pictures"), gr.update(visible=chosen == "passages"),
            gr.update(visible=chosen == "pictures"), *[gr.update(visible=chosen == "languages") for _ in versions],
        ]  # fmt: skip

    def rank_all(*given: Any) -> tuple:
        return sentence(lambda: rank_given(*given))

    def rank_given(chosen: str, image: str | None, images: list[str] | None, passages: str, passage: str, *translated: str) -> tuple:
        if chosen == "pictures":
            given, texts_given = list(images or []), [passage or ""]
            names = [say("picture {number}", number=n) for n in range(1, len(given) + 1)]
        else:
            given = [image] if image else []
            filled = [(say(LANGUAGES[t]), v) for t, v in zip(LANGUAGES, translated, strict=True) if v and v.strip()]
            texts_given = split_passages(passages or "") if chosen == "passages" else [v for _, v in filled]
            names = [short(t) for t in texts_given] if chosen == "passages" else [f"{n}: {short(v)}" for n, v in filled]
            if not texts_given:
                raise InputError("There is no passage; paste it in at least one language.")
        answers = rank(given, texts_given)
        questions = [(given[i if chosen == "pictures" else 0], texts_given[0 if chosen == "pictures" else i], names[i]) for i, _ in answers]
        spread = max(a.probability for _, a in answers) - min(a.probability for _, a in answers)
        note = say("From the best to the last the probability falls by {spread:.3f}.", spread=spread) + " " if len(answers) > 1 else ""
        return table_rows(answers, names), {"questions": questions, "shown": []}, note + say(HINT), "", "", *[gr.update(visible=False)] * 2

    def choose(kept: dict | None, event: gr.EventData) -> tuple:
        row = event.row
        if kept is None or not isinstance(row, int) or not 0 <= row < len(kept["questions"]):
            return (gr.skip(),) * 5
        image, passage, name = kept["questions"][row]
        shown = [(name, explain(image, passage)), *kept["shown"]][:2]
        html = [card_html(e, n) for n, e in shown] + [""] * (2 - len(shown))
        figures = [gr.update(value=evidence_figure(e, WHOLE, 0.55)[0], visible=True) for _, e in shown] + [gr.update(visible=False)] * (2 - len(shown))
        return {**kept, "shown": shown}, *html, *figures

    mode.change(switch, mode, [picture, pictures, texts, text, *versions], queue=False, api_visibility="private")
    model = {"concurrency_id": "model", "api_visibility": "private"}
    given, shown = [mode, picture, pictures, texts, text, *versions], [table, state, told, *cards, *maps]

    def forget() -> tuple:
        """A ranking must not stand beside pictures or passages that it is not about."""
        return [], None, say(HINT), "", "", *[gr.update(visible=False)] * 2

    asked = button.click(rank_all, given, shown, **model)
    asked.failure(forget, None, shown, queue=False, show_progress="hidden", api_visibility="private")
    gr.on([c.change for c in given], forget, None, shown, queue=False, show_progress="hidden", trigger_mode="always_last", api_visibility="private")
    table.select(choose, state, [state, *cards, *maps], **model)
