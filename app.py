"""The page: upload a picture and a historical passage, see whether both evoke the same smell, and why. Wires components to the pipeline.

Importing this module starts and downloads nothing; ``python app.py`` does.
"""

import functools
import logging
import os

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # nothing phones home; must be set before gradio is imported

from collections.abc import Callable
from pathlib import Path
from typing import Any

try:  # a ZeroGPU Space lends its GPU to functions marked like this; elsewhere the mark does nothing
    import spaces

    on_gpu = spaces.GPU(duration=30)
except ImportError:

    def on_gpu(function: Callable) -> Callable:
        """No ZeroGPU here: the function as it is."""
        return function


import gradio as gr

from musti_model import Explanation, InputError, MustiPipeline, Prediction, WeightsError
from musti_model.faithfulness import Faithfulness
from musti_model.figures import overlay
from musti_model.weights import STARTER
from musti_model.what_if import Alteration
from page.about import GUIDE, PAPER, card_markdown, faithfulness_markdown
from page.batch import Pictures, answered, batch_tab
from page.board import EMPTY, SCRIPT, TEMPLATE, alteration_of, board_value, what_if_html
from page.link import FULL_ADDRESS, query_of, reopened
from page.links import NOTHING, links_value
from page.links import SCRIPT as LINK
from page.links import TEMPLATE as LINKS
from page.many import many_tab, ranked
from page.take_away import zipped
from page.views import (
    WHOLE,
    attention_html,
    branch_name,
    effect_figure,
    effect_html,
    evidence_figure,
    evidence_html,
    faithfulness_html,
    gate_html,
    map_figure,
    verdict_html,
    view_choices,
    votes_html,
    weights_banner,
)

ASSETS = Path(__file__).parent / "assets"
PAGE_SIDE = 1000  # px; the page draws on a copy of the picture no larger than this
LIFETIME = 3600  # seconds after which uploads and answers of a visit are deleted
# On a narrow screen the answer lies far below the button; screen readers are told of it.
SHOW_VERDICT = """() => { const v = document.querySelector("#verdict");
  if (v.getBoundingClientRect().top > innerHeight) v.scrollIntoView({block: "start"}); }"""
LIVE = """() => document.querySelectorAll("#verdict, #altered, #faithful, #many-told, #batch-told").forEach((e) => e.setAttribute("aria-live", "polite"))"""
WORKING = "<p>The explanations follow …</p>"
FAILED = "<p>The explanations could not be made.</p>"
WAITING = "<p>Press “Compare” for the answer.</p>"  # also after an answer has expired
EXAMPLES = [
    ["candle.jpg", "She blew out the candle, and the smell of the wick and the warm wax lingered in the dark chamber."],
    ["candle.jpg", "Das Pferd dampfte nach dem Ritt, und der ganze Stall roch nach Schweiß und Leder."],
    ["china.jpg", "La vieille maison sentait la cire et le bois humide ; toutes les maisons de la rue étaient fermées."],
    ["lemons.jpg", "Si odora il limone e si spremono i limoni, e l'odore acuto rimane sulle mani."],
    ["flower.jpg", "She pressed the nosegay to her face; the roses and the other flowers filled the whole chamber with their scent."],
]


EXAMPLE_FILES = [(ASSETS / "examples" / name, text) for name, text in EXAMPLES]
SETTINGS = ("part", "branch", "kind", "view", "head", "words", "opacity", "stretch")  # what a link keeps, in the order of the page's inputs


class SafeImage(gr.Image):
    """An image input whose unreadable files end in one sentence instead of a server path."""

    def preprocess(self, payload: Any) -> Any:
        """As gr.Image, but any failure becomes a sentence."""
        try:
            return super().preprocess(payload)
        except Exception as error:
            raise gr.Error("This file is not a picture we can read; try a JPEG or PNG.", print_exception=False) from error

    def get_block_name(self) -> str:
        """The front end draws it as the ordinary image component."""
        return "image"


def load_pipeline() -> tuple[MustiPipeline, str | None]:
    """The weights that are asked for; if they cannot be had, the embedded starter and the sentence that says so."""
    try:
        return MustiPipeline.from_pretrained(), None
    except WeightsError as error:
        return MustiPipeline.from_pretrained(STARTER), f"{error} The page runs on the embedded starter weights instead."


# The page ---------------------------------------------------------------------------------------------------------------------------


def build(pipe: MustiPipeline, problem: str | None = None) -> gr.Blocks:
    """The page for one pipeline. problem: why it is not the one asked for."""
    branches = [(branch_name(b.name), b.name) for b in pipe.config.branches]
    views = view_choices(pipe)
    names = [name for _, name in branches]
    choices = {
        "part": [WHOLE, *names], "branch": names, "kind": ["share", "effect"], "view": [v for _, v in views], "head": list(range(1, 65)),
        "words": names, "opacity": [n / 20 for n in range(21)], "stretch": [False, True],
    }  # fmt: skip

    def guarded(function: Callable) -> Callable:
        """A function whose errors become sentences on the page."""

        @functools.wraps(function)
        def careful(*given: Any) -> Any:
            return sentence(lambda: function(*given))

        return careful

    def checked(function: Callable, image: str | None, passage: str) -> Any:
        if not image:
            raise gr.Error("Choose a picture first.", print_exception=False)
        return sentence(lambda: function(image, passage))

    def sentence(function: Callable[[], Any]) -> Any:
        try:
            return function()
        except (InputError, WeightsError) as error:
            raise gr.Error(str(error), print_exception=False) from error
        except Exception as error:  # no memory left on the device, say: the log tells more than the page should
            logging.getLogger(__name__).exception("a pair could not be answered")
            raise gr.Error("This pair could not be answered; try a smaller picture or another one.", print_exception=False) from error

    # Errors become sentences inside: a borrowed GPU hands on no other exception than gr.Error, and nothing large.
    @on_gpu
    def explain_pair(image: str | None, passage: str) -> Explanation:
        return checked(lambda i, p: pipe.explain(i, p).fit(PAGE_SIDE), image, passage)

    @on_gpu
    def predict_pair(image: str | None, passage: str) -> Prediction:
        return checked(pipe, image, passage)

    @on_gpu
    def measure_pair(image: str, passage: str, explanation: Explanation) -> dict[str, Faithfulness]:
        return checked(lambda i, p: pipe.faithfulness(i, p, explanation), image, passage)

    @on_gpu
    def alter_pair(image: str, passage: str, alteration: Alteration) -> float:
        return checked(lambda i, p: pipe.what_if(i, p, alteration), image, passage)

    @on_gpu
    def rank_pairs(images: list[str], passages: list[str]) -> list[tuple[int, Prediction]]:
        if not isinstance(passages, list) or not all(isinstance(p, str) for p in passages):
            raise gr.Error("passages is a list of texts.", print_exception=False)
        return sentence(lambda: ranked(pipe, images or [], passages))

    @on_gpu
    def answer_many(items: list, pictures: Pictures) -> list[dict]:
        return sentence(lambda: answered(pipe, items, pictures))

    def answer(image: str | None, passage: str) -> tuple:
        """The verdict alone; it comes at once, and whatever else stood there was about another question."""
        prediction = predict_pair(image, passage)
        votes = votes_html(prediction, pipe.config.temperature)
        return (image, passage), None, verdict_html(prediction), votes, *blank(WORKING)

    def run(question: tuple | None, *chosen: Any) -> tuple:
        """The explanations of the question that was answered last; none if it has been given up meanwhile."""
        if question is None:
            return (gr.skip(),) * (1 + len(explained))
        explanation = explain_pair(*question)
        return explanation, *show(explanation, *chosen)

    def measure(question: tuple | None, explanation: Explanation | None) -> str:
        if explanation is None:
            return ""
        if not pipe.many_passes:
            return "<p>How faithful this is was not measured: these weights are too large for that on this machine.</p>"
        return faithfulness_html(explanation.prediction.label, measure_pair(*question, explanation))

    def show(explanation: Explanation | None, part: str, branch: str, kind: str, view: str | None, head: int, word_branch: str, opacity: float, stretch: bool) -> tuple:
        return (
            None, *put_back(explanation), *show_evidence(explanation, part, opacity), *show_gate(explanation, branch, kind, opacity, stretch),
            *show_map(explanation, view, head, opacity, stretch), show_attention(explanation, word_branch, stretch),
        )  # fmt: skip

    def put_back(explanation: Explanation | None) -> tuple:
        """The board, the gate's switch, the voting branches and the altered answer, as if nothing had been altered."""
        told = "" if explanation is None else what_if_html(explanation.prediction, explanation.prediction.probability, Alteration())
        return board_value(explanation), True, [b for _, b in branches], told

    def alter(question: tuple | None, explanation: Explanation | None, value: dict, opened: bool, voting: list[str]) -> str:
        if explanation is None:
            return WAITING
        alteration = alteration_of(value, opened, voting, [b for _, b in branches])
        probability = alter_pair(*question, alteration) if alteration.changes else explanation.prediction.probability
        return what_if_html(explanation.prediction, probability, alteration)

    def link_to(question: tuple | None, *settings: Any) -> tuple:
        named = dict(zip(SETTINGS, settings, strict=True))
        return sentence(lambda: query_of(question, EXAMPLE_FILES, named)), gr.update(visible=True)

    def reopen(request: gr.Request) -> list:
        """A mark, example and settings of the address, if it names an example; the mark's change asks for the answer."""
        example, named = reopened(dict(request.query_params), EXAMPLE_FILES, choices)
        if example is None:
            return [gr.skip()] * (3 + len(SETTINGS))
        return ["reopened", str(example[0]), example[1], *[named.get(name, gr.skip()) for name in SETTINGS]]

    def pack_up(explanation: Explanation | None) -> dict:
        if explanation is None:
            raise gr.Error("There is nothing to take away yet; press “Compare” first.", print_exception=False)
        return gr.update(value=zipped(explanation, bundle.move_resource_to_block_cache), visible=True)

    def show_evidence(explanation: Explanation | None, part: str, opacity: float) -> tuple:
        if explanation is None:
            return WAITING, None, ""
        return evidence_html(explanation, part), *evidence_figure(explanation, part, opacity)

    def show_gate(explanation: Explanation | None, branch: str, kind: str, opacity: float, stretch: bool) -> tuple:
        """The coloured passage, the map, its legend, and the links of words and patches."""
        if explanation is None:
            return WAITING, None, "", NOTHING
        links = links_value(explanation, branch)
        if kind == "effect" and branch in explanation.gate_effect:
            return effect_html(explanation, branch), *effect_figure(explanation, branch, opacity), links
        return gate_html(explanation, branch, stretch), *map_figure(explanation, f"gate:{branch}", 0, opacity, stretch), links

    def show_map(explanation: Explanation | None, view: str | None, head: int, opacity: float, stretch: bool) -> tuple:
        return (None, WAITING) if explanation is None else map_figure(explanation, view, head, opacity, stretch)

    def show_head(view: str | None) -> dict:
        kind, _, branch = (view or "").partition(":")
        heads = heads_of(branch) if kind == "heads" else 1
        return gr.update(visible=heads > 1, maximum=max(2, heads))

    def heads_of(branch: str) -> int:
        return pipe.model.branches[branch].backbone.blocks[-1].attn.num_heads

    def show_attention(explanation: Explanation | None, branch: str, stretch: bool) -> str:
        return WAITING if explanation is None else attention_html(explanation, branch, stretch)

    def blank(words: str) -> tuple:
        """What stands in the place of explanations: the zip; the board and its switches; evidence, map, legend; faithfulness; gate, map, legend, links; overlay,
        legend; words."""
        return None, *put_back(None), words, None, "", "", words, None, "", NOTHING, None, "", words

    def forget(question: tuple | None, image: str | None, passage: str) -> tuple:
        """An answer must not stand beside a picture or a passage that it is not about. (The examples' own answer may be there first.)"""
        if question == (image, passage):
            return (gr.skip(),) * len(shown)
        return None, None, WAITING, "", *blank("")

    def predict(image: str, passage: str) -> dict:
        """Whether a picture and a passage evoke the same smell.

        Args:
            image: the picture.
            passage: the historical text.

        Returns: label, probability, threshold, similarities, notices.
        """
        return predict_pair(image, passage).to_json()

    def explain(image: str, passage: str) -> tuple[dict, list]:
        """The answer with words, gate weights and shares, and the overlay pictures (at most 1000 px a side).

        Args:
            image: the picture.
            passage: the historical text.
        """
        explanation = explain_pair(image, passage)
        overlays = [(overlay(explanation.image, values), name) for name, values in explanation.maps.items()]
        return explanation.prediction.to_json() | explanation.manifest(), overlays

    def rank(images: list[str], passages: list[str]) -> list[dict]:
        """One picture against up to 50 passages, or up to 20 pictures against one passage, best first.

        Args:
            images: the pictures.
            passages: the historical texts.

        Returns: for each: index (in the list given), label, probability, threshold, similarities, notices.
        """
        return [{"index": i} | p.to_json() for i, p in rank_pairs(images, passages)]

    with gr.Blocks(title="Do picture and passage smell alike?", delete_cache=(LIFETIME, LIFETIME)) as demo:
        gr.Markdown(
            "# Do this picture and this passage evoke the same smell?\nUpload a picture, paste a historical passage (English, German, French, "
            "Italian, Slovenian), and see the model's answer and what happened inside it. Uploads and answers are deleted within two hours."
        )
        gr.HTML(weights_banner(pipe, problem))
        state = gr.State(None, time_to_live=LIFETIME)
        question = gr.State(None, time_to_live=LIFETIME)
        with gr.Tabs():
            with gr.Tab("One pair"):
                with gr.Row():
                    with gr.Column(scale=2, min_width=300):
                        image = SafeImage(
                            type="filepath", image_mode=None, sources=["upload", "clipboard"], label="Picture", height=300, elem_id="picture"
                        )
                        passage = gr.Textbox(label="Passage", lines=5, max_lines=14, elem_id="passage", placeholder="Paste a passage that speaks of a smell …")
                        button = gr.Button("Compare", variant="primary", elem_id="run")
                        examples_at = gr.Column()
                        if pipe.objects:
                            with gr.Accordion(f"The {len(pipe.objects)} objects these weights know", open=False):
                                gr.Markdown(", ".join(pipe.objects))
                    with gr.Column(scale=3, min_width=300):
                        verdict = gr.HTML("<p>The answer appears here.</p>", elem_id="verdict")
                        with gr.Tabs():
                            with gr.Tab("Why"):
                                part = gr.Radio([("Whole model", WHOLE), *branches], value=WHOLE, label="Evidence of", elem_id="part")
                                evidence = gr.HTML(elem_id="evidence")
                                evidence_map = gr.Image(
                                    label="Regions for and against", interactive=False, buttons=["download"], elem_id="evidence-map", format="png",
                                    alt_text="The picture with regions that speak for YES in orange and against it in purple; the legend below gives the values",
                                )  # fmt: skip
                                evidence_legend = gr.HTML()
                                faithful = gr.HTML(elem_id="faithful")
                                gr.Markdown(
                                    "Each word is struck out and read alone. Blocks of a blank picture are shown in random orders, and parts of the picture are "
                                    "looked at alone and enlarged. The numbers are what that does to the logit. They tell what this model's answer hangs on, not "
                                    "whether the model is right."
                                )
                            with gr.Tab("What if"):
                                altered = gr.HTML(elem_id="altered")
                                with gr.Row():
                                    gate_open = gr.Checkbox(True, label="Gate open", elem_id="gate-open", visible=pipe.config.fusion == "tsf")
                                    voting = gr.CheckboxGroup(branches, value=[b for _, b in branches], label="Branches that vote", elem_id="voting")
                                board = gr.HTML(EMPTY, html_template=TEMPLATE, js_on_load=SCRIPT, elem_id="board")
                                undo = gr.Button("Put everything back", size="sm", elem_id="undo")
                                gr.Markdown(
                                    "Words are taken out of the passage, cells get the picture's mean colour. A branch that does not vote gives its weight to "
                                    "those that do. With the gate shut the passage is read without the picture."
                                )
                            with gr.Tab("Vote"):
                                votes = gr.HTML(elem_id="votes")
                            with gr.Tab("TSF gate"):
                                branch = gr.Radio(branches, value=branches[0][1], label="Image branch", elem_id="branch")
                                kind = gr.Radio(
                                    [("Image share", "share"), ("Effect on the answer", "effect")], value="share", label="Show", elem_id="kind",
                                    visible=pipe.config.fusion == "tsf",
                                )  # fmt: skip
                                gate = gr.HTML(elem_id="gate")
                                gate_map = gr.Image(
                                    label="Patches through the gate", interactive=False, buttons=["download"], elem_id="gate-map", format="png",
                                    alt_text="The picture with what is chosen under Show laid over each patch; the legend below gives the values",
                                )  # fmt: skip
                                gate_legend = gr.HTML()
                                with gr.Accordion("Which patch met which word", open=False):
                                    gr.Markdown("Through the gate each word meets some patches of the picture. The colour is what that meeting changed in the answer.")
                                    links = gr.HTML(NOTHING, html_template=LINKS, js_on_load=LINK, elem_id="links")
                            with gr.Tab("Overlays"):
                                view = gr.Dropdown(views, value=views[0][1] if views else None, label="Overlay", elem_id="view")
                                head = gr.Slider(1, 2, value=1, step=1, label="Head", elem_id="head", visible=False)
                                attention_map = gr.Image(
                                    label="Overlay", interactive=False, buttons=["download"], elem_id="attention-map", format="png",
                                    alt_text="The picture with the chosen map laid over it; the legend below gives the values",
                                )  # fmt: skip
                                attention_legend = gr.HTML()
                                gr.Markdown(
                                    "Attention and Grad-CAM show where the model looked and which regions raised its score; "
                                    "neither proves why it answered as it did."
                                )
                            with gr.Tab("Words"):
                                word_branch = gr.Radio(branches, value=branches[0][1], label="Text read with the picture of branch", elem_id="word-branch")
                                words = gr.HTML(elem_id="words")
                                gr.Markdown(
                                    "Last-layer attention of the text encoder's summary token, mean of its heads: where it looked, not why the model decided."
                                )
                        with gr.Row():
                            opacity = gr.Slider(0, 1, value=0.55, step=0.05, label="Opacity of overlays", elem_id="opacity")
                            stretch = gr.Checkbox(
                                False, label="Stretch colours", elem_id="stretch",
                                info="From the smallest to the largest value: small differences look large.",
                            )  # fmt: skip
                        with gr.Row():
                            make_link = gr.Button("Link to this view", size="sm", elem_id="make-link")
                            pack = gr.Button("Take away (zip of maps and numbers)", size="sm", elem_id="pack")
                            bundle = gr.File(label="Zip", interactive=False, visible="hidden", elem_id="bundle", height=80)
                        link = gr.Textbox(label="Link", interactive=False, buttons=["copy"], visible="hidden", elem_id="link")
                        query = gr.Textbox(visible=False)
            with gr.Tab("Compare many"):
                many_tab(SafeImage, rank_pairs, explain_pair, guarded)
            with gr.Tab("Batch"):
                batch_tab(answer_many, sentence)
            with gr.Tab("About"):
                gr.Markdown(GUIDE, elem_id="guide")
                gr.Markdown(faithfulness_markdown(ASSETS))
                gr.Markdown(card_markdown(pipe), elem_id="card")
                gr.Markdown(PAPER)
        switches = [board, gate_open, voting]
        explained = [bundle, *switches, altered, evidence, evidence_map, evidence_legend, gate, gate_map, gate_legend, links, attention_map, attention_legend, words]
        shown = [
            question, state, verdict, votes, bundle, *switches, altered, evidence, evidence_map, evidence_legend, faithful, gate, gate_map, gate_legend, links, attention_map,
            attention_legend, words,
        ]  # fmt: skip
        silent = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
        chosen = [part, branch, kind, view, head, word_branch, opacity, stretch]
        model = {"concurrency_id": "model", "api_visibility": "private"}
        asked = [gr.on([button.click, passage.submit], answer, [image, passage], shown, **model)]
        mark = gr.Textbox(visible="hidden", elem_id="mark", label="mark")  # in the page, or its change would tell nobody
        demo.load(reopen, None, [mark, image, passage, *chosen], **silent)
        asked.append(mark.change(answer, [image, passage], shown, **model))
        with examples_at:
            rows = [[str(ASSETS / "examples" / name), text] for name, text in EXAMPLES]
            examples = gr.Examples(rows, [image, passage], label="Examples (answer at once)", cache_examples=False, api_visibility="private")
        asked.append(examples.load_input_event.then(answer, [image, passage], shown, **model))
        for event in asked:
            event.success(None, js=SHOW_VERDICT, api_visibility="private")
            told = event.success(run, [question, *chosen], [state, *explained], **model)
            told.failure(lambda: blank(FAILED), None, shown[4:], queue=False, show_progress="hidden", api_visibility="private")
            measured = told.success(measure, [question, state], faithful, **model)
            for done in (event, told, measured):  # the picture or the passage may have changed while the model was at work
                done.then(forget, [question, image, passage], shown, queue=False, show_progress="hidden", api_visibility="private")
        drawing = {"queue": False, "show_progress": "hidden", "trigger_mode": "always_last", "api_visibility": "private"}
        redrawn = [opacity.change, stretch.change]
        gr.on([part.change, opacity.change], show_evidence, [state, part, opacity], [evidence, evidence_map, evidence_legend], **drawing)
        gr.on(
            [branch.change, kind.change, *redrawn], show_gate, [state, branch, kind, opacity, stretch], [gate, gate_map, gate_legend, links], **drawing
        )
        gr.on(
            [view.change, head.change, *redrawn], show_map, [state, view, head, opacity, stretch], [attention_map, attention_legend], **drawing
        )
        gr.on([image.change, passage.change], forget, [question, image, passage], shown, **drawing)
        tried = gr.on(
            [board.input, gate_open.input, voting.input], alter, [question, state, *switches], altered, trigger_mode="always_last",
            show_progress="minimal", **model,
        )  # fmt: skip
        tried.failure(lambda: "", None, altered, queue=False, show_progress="hidden", api_visibility="private")
        packed = pack.click(pack_up, state, bundle, api_visibility="private")
        for done in (tried, packed):
            done.then(forget, [question, image, passage], shown, queue=False, show_progress="hidden", api_visibility="private")
        made = make_link.click(link_to, [question, *chosen], [query, link], api_visibility="private")
        made.success(None, query, link, js=FULL_ADDRESS, api_visibility="private")
        undo.click(put_back, state, [*switches, altered], **model)  # in the queue, after an alteration that is still at work
        view.change(show_head, view, head, **drawing)
        gr.on([word_branch.change, stretch.change], show_attention, [state, word_branch, stretch], words, **drawing)
        demo.load(None, js=LIVE, api_visibility="private")
        answer, overlays = gr.JSON(visible=False, label="answer"), gr.Gallery(visible=False, label="overlays")
        gr.Button(visible=False).click(predict, [image, passage], answer, api_name="predict", concurrency_id="model")
        files, texts, order = gr.File(visible=False, file_count="multiple", label="images"), gr.JSON(visible=False, label="passages"), gr.JSON(visible=False)
        gr.Button(visible=False).click(rank, [files, texts], order, api_name="rank", concurrency_id="model")
        gr.Button(visible=False).click(explain, [image, passage], [answer, overlays], api_name="explain", concurrency_id="model")
    return demo.queue(max_size=20, default_concurrency_limit=1)


def launch_settings() -> dict[str, Any]:
    """Arguments of ``launch``, the same for people and for tests."""
    return {
        "theme": gr.themes.Soft(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
        "css_paths": [ASSETS / "style.css"],
        "max_file_size": "30mb",
        "run_history": False,
        "enable_monitoring": False,
        "footer_links": ["api"],
        "allowed_paths": [str(ASSETS / "examples")],
    }


if __name__ == "__main__":
    build(*load_pipeline()).launch(**launch_settings())
