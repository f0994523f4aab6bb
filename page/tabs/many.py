"""The tab "Compare many": one picture with many passages, one passage with many pictures, one passage in several
languages; ranked."""

import re
from collections.abc import Sequence
from functools import partial
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr

from musti_model import Explanation, InputError, Prediction, Sentence
from musti_model.processing import open_image

from ..calls import MOST_PASSAGES, MOST_PICTURES, Calls
from ..examples import EXAMPLES
from ..inputs import SafeFile, SafeImage
from ..language import later, number, refusal, refusing, say
from ..markup import alert, data_url, literal, script, template
from ..parts.why import WHOLE, evidence_figure, evidence_html
from ..visit import LIFETIME, MANY, SILENT, SLOW, STAMP

OPACITY = 0.55  # of the maps below the table
THUMBNAIL = 96  # px of the longest side of a ranked picture
VERSIONS = {"en": "English", "de": "German", "fr": "French", "it": "Italian", "sl": "Slovenian"}
MODES = [
    ("One picture, many passages", "passages"),
    ("One passage, many pictures", "pictures"),
    ("One passage in several languages", "languages"),
]
TRIES = {"passages": "Example: a picture with passages", "pictures": "Example: a passage with pictures"}
HINT = Sentence("“Why?” shows the evidence of a row; that of the row before stays beside it.")
HEADS = (later("rank"), later("probability of YES"), later("answer"), later("about"))
ALTS = (
    "The picture of the row chosen last, regions for YES in orange and against it in purple",
    "The picture of the row before, regions for YES in orange and against it in purple",
)


def split_passages(text: str) -> list[str]:
    """Passages between empty lines, in which spaces may stand; without an empty line each line is one. Raises
    InputError for none, or for too many."""
    blocks = re.split(r"\n\s*\n", text.strip())
    passages = [b.strip() for b in (blocks if len(blocks) > 1 else text.splitlines()) if b.strip()]
    if not passages:
        raise InputError("There is no passage; paste some, with an empty line between them.")
    if len(passages) > MOST_PASSAGES:
        raise InputError(
            "There are {count} passages; {most} at a time is the limit.", count=len(passages), most=MOST_PASSAGES
        )
    return passages


def table_rows(answers: list[tuple[int, Prediction]], names: list[str], shown: list[str]) -> list[dict[str, Any]]:
    """What ``ranking.hbs`` shows of each answer, best first. shown: a small picture of each, or ""."""
    told = {"heads": [say(h) for h in HEADS], "why": say("Why?")}
    return [
        told
        | {
            "rank": rank,
            "probability": number(a.probability, ".3f"),
            "width": f"{a.probability:.1%}",
            "mark": f"{a.threshold:.1%}",
            "answer": say("cannot tell") if a.unsure else say(a.label),
            "about": literal(names[i]),
            "picture": shown[i],
        }
        for rank, (i, a) in enumerate(answers, start=1)
    ]


def readable(pictures: list[str], names: list[str]) -> tuple[list[str], list[str], list[str], str]:
    """Of several pictures and their names those that can be read; each of them small; and what is to be said of the
    others, as HTML. Raises gr.Error where none can be read."""
    kept: list[tuple[str, str, str]] = []
    refused: list[tuple[str, gr.Error]] = []
    for path, name in zip(pictures, names, strict=True):
        try:
            kept.append((path, name, refusing(partial(_thumbnail, path))))
        except gr.Error as error:
            refused.append((name, error))
    if not kept:
        raise refused[0][1]
    told = "".join(
        f'<div class="notice">{escape(say("{name} is left out. {problem}", name=name, problem=error.message))}</div>'
        for name, error in refused
    )
    return [k[0] for k in kept], [k[1] for k in kept], [k[2] for k in kept], told


def _thumbnail(path: str) -> str:
    return data_url(open_image(path, THUMBNAIL), THUMBNAIL)


def short(text: str, length: int = 90) -> str:
    """The beginning of a passage, on one line, without the lone surrogates that no page can be sent with."""
    line = " ".join(text.split(maxsplit=length)[:length]).encode("utf-8", "replace").decode()
    return line if len(line) <= length else line[: length - 1] + "…"


def card_html(explanation: Explanation, name: str, beside: list[Explanation]) -> str:
    """One result: its picture small, its answer, its words for and against. beside: the explanations that are shown,
    for one scale."""
    p = explanation.prediction
    picture = f'<img src="{data_url(explanation.image, 160)}" alt="{say("the picture of this row")}">'
    told = say(
        "{answer}, probability of YES <strong>{p:.3f}</strong>",
        answer=say("cannot tell") if p.unsure else say(p.label),
        p=p.probability,
    )
    title = f"<h3>{escape(name)}</h3><p>{told}</p>"
    return f'<div class="card">{picture}<div>{title}{evidence_html(explanation, WHOLE, beside)}</div></div>'


class Ranking(NamedTuple):
    """A ranking, or the sentence in its place. given: the inputs it is about; asked: when; rows: of its table; told:
    what stands below; questions: (picture, passage, name) by rank; shown: rows whose evidence stands below, last chosen
    first; hidden: whether the inputs are others now."""

    given: list[Any]
    asked: float
    rows: list[dict[str, Any]]
    told: str
    questions: list[tuple[str, str, str]]
    shown: Sequence[tuple[str, Explanation]] = ()
    hidden: bool = False


class ManyTab:
    """Builds the tab inside the Blocks that is open; its components are attributes, its handlers methods."""

    def __init__(self, calls: Calls) -> None:
        self.calls = calls
        self.kept, self.when = gr.State(None, time_to_live=LIFETIME), gr.Number(visible=False)
        self.mode = gr.Radio(MODES, value="passages", label="Compare", elem_id="mode")
        with gr.Row():
            self.tries = {mode: gr.Button(label, size="sm", elem_id=f"try-{mode}") for mode, label in TRIES.items()}
        with gr.Row():
            with gr.Column(min_width=300):
                self._ask_pictures()
            with gr.Column(min_width=300):
                self._ask_passages()
        self.button = gr.Button("Rank", variant="primary", elem_id="rank")
        self.table = gr.HTML(
            [], html_template=template("ranking.hbs"), js_on_load=script("ranking.js"), elem_id="ranking"
        )
        self.told = gr.HTML(HINT, elem_id="many-told")
        with gr.Row():
            self.cards = [self._card(number, alt) for number, alt in enumerate(ALTS, start=1)]
        self._wire()

    # Components -------------------------------------------------------------------------------------------------------

    def _ask_pictures(self) -> None:
        self.picture = SafeImage(
            type="filepath",
            image_mode=None,
            sources=["upload", "clipboard"],
            label="Picture",
            height=240,
            elem_id="many-picture",
        )
        label = Sentence("Pictures (at most {most})", most=MOST_PICTURES)
        self.pictures = SafeFile(
            file_count="multiple", file_types=["image"], label=label, visible=False, elem_id="many-pictures"
        )

    def _ask_passages(self) -> None:
        label = Sentence("Passages (at most {most}), an empty line between them", most=MOST_PASSAGES)
        self.passages = gr.Textbox(label=label, lines=8, max_lines=16, elem_id="many-passages")
        self.passage = gr.Textbox(label="Passage", lines=5, visible=False, elem_id="one-passage")
        self.versions = [
            gr.Textbox(label=name, lines=2, visible=False, elem_id=f"passage-{tag}") for tag, name in VERSIONS.items()
        ]

    def _card(self, number: int, alt: str) -> tuple[gr.HTML, gr.Image, gr.HTML]:
        with gr.Column(min_width=320):
            card = gr.HTML(elem_id=f"card-{number}")
            figure = gr.Image(
                label="Regions for and against",
                interactive=False,
                buttons=["download", "fullscreen"],
                visible=False,
                elem_id=f"card-map-{number}",
                alt_text=alt,
            )
            return card, figure, gr.HTML()

    # Events -----------------------------------------------------------------------------------------------------------

    def _wire(self) -> None:
        self.given: list[gr.Radio | SafeImage | SafeFile | gr.Textbox] = [
            self.mode,
            self.picture,
            self.pictures,
            self.passages,
            self.passage,
            *self.versions,
        ]
        self.below = [part for card in self.cards for part in card]
        self.shown = [self.kept, self.table, self.told, *self.below]
        self.mode.change(self.switch, self.mode, self.given[1:], **SILENT)
        # While a ranking is under way none is kept: else a message that takes the one before away might arrive after
        # the new one, and empty its table.
        begun = [self.button.click(self.blank, None, self.shown, **SILENT)]
        begun += [
            button.click(partial(self.example, mode), None, [*self.given, *self.shown], **SILENT)
            for mode, button in self.tries.items()
        ]
        seen = MANY | {"js": STAMP, "show_progress_on": self.table}
        asked = [b.success(self.rank_all, [*self.given, self.when], self.shown, **seen) for b in begun]
        for event in asked:
            event.failure(self.blank, None, self.shown, **SILENT)
        chosen = self.table.select(
            self.choose, self.kept, [self.kept, *self.below], show_progress_on=self.below[0], **SLOW
        )
        forgetful: dict[str, Any] = {
            "fn": self.forget,
            "inputs": [self.kept, *self.given, self.when],
            "outputs": self.shown,
            "js": STAMP,
            **SILENT,
        }
        gr.on([c.change for c in self.given], **forgetful)
        for done in (*asked, chosen):  # the inputs may have changed while the model was at work
            done.then(**forgetful)

    def example(self, mode: str) -> list[Any]:
        """The mode, the page's examples in the inputs that it needs, and no ranking."""
        pictures = [str(path) for path in dict.fromkeys(e.path for e in EXAMPLES)]
        passages = list(dict.fromkeys(e.passage for e in EXAMPLES))
        values = {
            self.picture: pictures[0],
            self.pictures: pictures,
            self.passages: "\n\n".join(passages),
            self.passage: passages[0],
        }
        inputs = zip(self.given[1:], self.switch(mode), strict=True)
        return [
            mode,
            *(update | {"value": values[component]} if update["visible"] else update for component, update in inputs),
            *self.blank(),
        ]

    def switch(self, mode: str) -> list[dict[str, Any]]:
        """The inputs that a mode needs."""
        needed = {
            "passages": [self.picture, self.passages],
            "pictures": [self.pictures, self.passage],
            "languages": [self.picture, *self.versions],
        }[mode]
        return [gr.update(visible=component in needed) for component in self.given[1:]]

    def rank_all(self, *given: Any) -> tuple[Any, ...]:
        """The table, whose rows are explained when they are asked for; or a sentence that stays in its place, as a
        toast would not, until the inputs change."""
        *inputs, when = given
        try:
            return self._ranked(inputs, when)
        except gr.Error as error:
            return self._standing(Ranking(inputs, when, [], alert(error), []))

    def _ranked(self, inputs: list[Any], when: float) -> tuple[Any, ...]:
        pictures, passages, names = refusing(lambda: _lists(*inputs))
        shown, left_out = [""] * len(names), ""
        if len(pictures) > 1:  # one alone is not shown again in each row
            pictures, names, shown, left_out = readable(pictures, names)
        answers = self.calls.rank(pictures, passages)
        questions = [(pictures[i % len(pictures)], passages[i % len(passages)], names[i]) for i, _ in answers]
        probabilities = [a.probability for _, a in answers]
        note = say(
            "From the best to the last the probability falls by {spread:.3f}.",
            spread=max(probabilities) - min(probabilities),
        )
        told = f"{note} {say(HINT)}" if len(answers) > 1 else say(HINT)
        rows = table_rows(answers, names, shown)
        return self._standing(Ranking(inputs, when, rows, left_out + told, questions))

    def _standing(self, ranking: Ranking) -> tuple[Any, ...]:
        """What stands in the places of ``shown``."""
        return ranking, ranking.rows, ranking.told, *self._below(ranking.shown)

    def choose(self, kept: Ranking | None, event: gr.EventData) -> tuple[Any, ...]:
        """The evidence of a row, beside that of the row before."""
        if kept is None:
            raise refusal("This ranking has expired; press “Rank” again.")
        row = event.row
        if not isinstance(row, int) or not 0 <= row < len(kept.questions):
            return (gr.skip(),) * (1 + len(self.below))
        image, passage, name = kept.questions[row]
        try:
            shown = [(name, self.calls.explain(image, passage)), *kept.shown][:2]
        except gr.Error as error:
            return kept._replace(shown=[]), alert(error), *self._below([])[1:]
        return kept._replace(shown=shown), *self._below(shown)

    def _below(self, shown: Sequence[tuple[str, Explanation]]) -> list[Any]:
        """What stands in the place of ``below``."""
        parts: list[Any] = []
        beside = [explanation for _, explanation in shown]
        for name, explanation in shown:
            figure, legend = evidence_figure(explanation, WHOLE, OPACITY, beside)
            parts += [card_html(explanation, name, beside), gr.update(value=figure, visible=figure is not None), legend]
        return parts + ["", gr.update(value=None, visible=False), ""] * (len(self.cards) - len(shown))

    def forget(self, kept: Ranking | None, *given: Any) -> tuple[Any, ...]:
        """A ranking must not stand beside pictures or passages that it is not about; it stands again when they are put
        back. See ``PairTab.settle``."""
        *inputs, when = given
        if kept is not None and kept.given == inputs and kept.hidden:
            return self._standing(kept._replace(hidden=False))
        if kept is None or kept.hidden or kept.given == inputs or when <= kept.asked:
            return (gr.skip(),) * len(self.shown)
        return kept._replace(hidden=True), *self.blank()[1:]

    def blank(self) -> tuple[Any, ...]:
        """No ranking."""
        return None, [], say(HINT), *self._below([])


def _lists(
    mode: str, picture: str | None, pictures: list[str] | None, passages: str, passage: str, *versions: str
) -> tuple[list[str], list[str], list[str]]:
    """Pictures, passages, and the names of what is ranked. Raises InputError where something is missing."""
    one = [picture] if picture else []
    if mode == "pictures":
        many = list(pictures or [])
        result = (
            many,
            [passage or ""],
            [f"{say('picture {number}', number=n)}: {short(Path(path).name)}" for n, path in enumerate(many, start=1)],
        )
    elif mode == "passages":
        texts = split_passages(passages or "")
        result = one, texts, [short(t) for t in texts]
    else:
        filled = [
            (say(name), text) for name, text in zip(VERSIONS.values(), versions, strict=True) if text and text.strip()
        ]
        if not filled:
            raise InputError("There is no passage; paste it in at least one language.")
        result = one, [text for _, text in filled], [f"{name}: {short(text)}" for name, text in filled]
    if not result[0]:
        raise InputError("Choose a picture first.")
    return result
