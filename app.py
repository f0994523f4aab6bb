"""The page: upload a picture and a historical passage, see whether both evoke the same smell, and why. Wires components to the pipeline.

Importing this module starts and downloads nothing; ``python app.py`` does.
"""

import logging
import os

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # nothing phones home; must be set before gradio is imported

from collections import Counter
from collections.abc import Callable
from html import escape
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
import numpy as np

from musti_model import Explanation, InputError, MustiPipeline, Prediction, WeightsError
from musti_model.figures import legend_html, overlay, scale_of, words_html
from musti_model.weights import STARTER

ASSETS = Path(__file__).parent / "assets"
BRANCH_NAMES = {"vit": "ViT", "resnet": "ResNet", "swin": "Swin"}
VIEW_NAMES = {"rollout": "attention rollout", "gradcam": "Grad-CAM", "gate": "gate: image share of each patch"}
CLOSE = 0.05  # distance from the threshold within which an answer is called close
PAGE_SIDE = 1000  # px; the page draws on a copy of the picture no larger than this
LIFETIME = 3600  # seconds after which uploads and answers of a visit are deleted
# On a narrow screen the answer lies far below the button; screen readers are told of it.
SHOW_VERDICT = """() => { const v = document.querySelector("#verdict");
  if (v.getBoundingClientRect().top > innerHeight) v.scrollIntoView({block: "start"}); }"""
LIVE_VERDICT = """() => document.querySelector("#verdict").setAttribute("aria-live", "polite")"""
WAITING = "<p>Press “Compare” for the answer.</p>"  # also after an answer has expired
EXAMPLES = [
    ["candle.jpg", "She blew out the candle, and the smell of the wick and the warm wax lingered in the dark chamber."],
    ["candle.jpg", "Das Pferd dampfte nach dem Ritt, und der ganze Stall roch nach Schweiß und Leder."],
    ["china.jpg", "La vieille maison sentait la cire et le bois humide ; toutes les maisons de la rue étaient fermées."],
    ["lemons.jpg", "Si odora il limone e si spremono i limoni, e l'odore acuto rimane sulle mani."],
    ["flower.jpg", "She pressed the nosegay to her face; the roses and the other flowers filled the whole chamber with their scent."],
]


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


# Words and figures for people -------------------------------------------------------------------------------------------------------


def branch_name(name: str) -> str:
    """The name of a branch as people read it."""
    return BRANCH_NAMES.get(name, name)


def weights_banner(pipe: MustiPipeline, problem: str | None) -> str:
    """Which weights run, their measured score, and the caveat."""
    try:
        test = pipe.card["test"]
        score = f"F1-macro {float(test['f1_macro']):.2f} on {int(test['pairs'])} held-out test pairs. "
    except (KeyError, TypeError, ValueError):  # others may have written the card
        score = "No measured score is stored with these weights. "
    caveat = escape(str(pipe.card.get("caveat", "")))
    warning = f'<p class="banner warning" role="alert">{escape(problem)}</p>' if problem else ""
    return (
        f'{warning}<div class="banner" id="weights"><strong>Weights:</strong> {escape(pipe.name)} '
        f"({escape(pipe.revision)}). {score}{caveat}</div>"
    )


def verdict_html(prediction: Prediction) -> str:
    """The answer in words, the probability against the threshold, the notices."""
    yes, p, t = prediction.label == "YES", prediction.probability, prediction.threshold
    title = "YES: the same smell" if yes else "NO: not the same smell"
    if abs(p - t) < CLOSE:
        title = "Rather YES, but only just" if yes else "Rather NO, but only just"
    if prediction.unsure:
        title = "The model cannot tell"
    side = "above" if yes else "below"
    notices = "".join(f'<div class="notice">{escape(n)}</div>' for n in prediction.notices)
    seen = ", ".join(f"{escape(n)} ({v:.0%})" for n, v in prediction.objects_in_picture)
    counts = Counter((n, w.lower()) for n, w in prediction.objects_in_passage)
    read = ", ".join(f"{escape(w)} → {escape(n)}" + (f" (×{k})" if k > 1 else "") for (n, w), k in counts.most_common())
    naming = f"<p>In the picture it would see: {seen}.<br>In the passage it reads: {read or 'none of its objects'}.</p>" if seen else ""
    return (
        f'<div class="verdict"><h2>{title}</h2><p>Probability of YES <strong>{p:.3f}</strong>, {side} the threshold {t:.3f}.</p>'
        f'<div class="meter" role="img" aria-label="probability {p:.3f}, threshold {t:.3f}"><div class="fill" style="width:{p:.1%}"></div>'
        f'<div class="mark" style="left:{t:.1%}"><span>threshold</span></div></div>{naming}{notices}</div>'
    )


def votes_html(prediction: Prediction, temperature: float) -> str:
    """How the cosines became the logit."""
    rows = "".join(
        f"<tr><td>{escape(branch_name(n))}</td><td>{s:+.3f}</td><td>{prediction.votes[n]:+.3f}</td></tr>"
        for n, s in prediction.similarities.items()
    )
    softened = f" / temperature {temperature:.2f}" if temperature != 1 else ""
    return (
        '<div class="scroll"><table class="votes"><thead><tr><th>branch</th><th>cosine text/image</th><th>its vote</th></tr></thead>'
        f"<tbody>{rows}<tr><td>constant</td><td></td><td>{prediction.vote_bias:+.3f}</td></tr>"
        f"<tr><td><strong>logit (sum)</strong></td><td></td><td><strong>{prediction.logit:+.3f}</strong></td></tr></tbody></table></div>"
        f"<p>Probability = sigmoid(logit{softened}).</p>"
    )


def gate_html(explanation: Explanation, branch: str, stretch: bool) -> str:
    """The gate's numbers and the coloured passage."""
    if explanation.gate_weights is None:
        return "<p>These weights have no gate (fusion none): the picture does not touch the text before the cosine.</p>"
    g, values = explanation.gate_weights, explanation.gates[branch].words
    return (
        f"<p>w_image = {g.w_image:+.4f}, w_text = {g.w_text:+.4f}, bias = {g.bias:+.4f}: the gate passes on "
        "LayerNorm(w_image · I + w_text · T + bias + T). <em>How to read it:</em> the brighter a word, the larger the picture's part in what the "
        "text encoder gets at that place; it shows where picture and text were mixed, not that the word decided the answer.</p>"
        + coloured_words(explanation, values, "image share", stretch) + ("" if stretch else alike(values))
    )


def alike(values: list[float]) -> str:
    """What to do when all colours look the same."""
    if not values or min(values) < 0.7 * max(values):
        return ""
    return "<p>The shares are nearly the same everywhere; “Stretch colours” below shows the small differences.</p>"


def attention_html(explanation: Explanation, branch: str, stretch: bool) -> str:
    """The passage coloured by the text encoder's attention."""
    return coloured_words(explanation, explanation.word_attention[branch], "attention of the summary token", stretch)


def coloured_words(explanation: Explanation, values: list[float], label: str, stretch: bool) -> str:
    """The passage with its words coloured by ``values``."""
    scale = scale_of(np.asarray(values), stretch) if values else None
    return words_html(explanation.passage, explanation.word_spans, values, label, scale)


def map_figure(explanation: Explanation, view: str | None, head: int, opacity: float, stretch: bool) -> tuple[Any, str]:
    """The overlay of one view, and its legend. ``head`` counts from 1 and matters to the view of one head only."""
    kind, _, branch = (view or "").partition(":")
    if kind == "heads":
        head = min(max(int(head), 1), len(explanation.heads[branch]))
        values, label = explanation.head_map(branch, head - 1), f"class-token attention of head {head}, last layer"
    elif view in explanation.maps:
        values, label = explanation.maps[view], VIEW_NAMES[kind]
    else:
        return None, "<p>There is no such map: these weights have no gate, or their image tokens have no place in the picture.</p>"
    scale = scale_of(values, stretch)
    return overlay(explanation.image, values, opacity, scale), legend_html(*scale, label)


def view_choices(pipe: MustiPipeline) -> list[tuple[str, str]]:
    """(label, view) of every map that these weights can have."""
    choices = []
    for name, branch in pipe.model.branches.items():
        if branch.is_vit:
            choices += [(f"{branch_name(name)}: attention rollout", f"rollout:{name}"), (f"{branch_name(name)}: one head, last layer", f"heads:{name}")]
        elif not branch.is_swin:
            choices.append((f"{branch_name(name)}: Grad-CAM", f"gradcam:{name}"))
    return choices


# The page ---------------------------------------------------------------------------------------------------------------------------


def build(pipe: MustiPipeline, problem: str | None = None) -> gr.Blocks:
    """The page for one pipeline. problem: why it is not the one asked for."""
    branches = [(branch_name(b.name), b.name) for b in pipe.config.branches]
    views = view_choices(pipe)

    def checked(function: Callable, image: str | None, passage: str) -> Any:
        if not image:
            raise gr.Error("Choose a picture first.", print_exception=False)
        try:
            return function(image, passage)
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

    def run(image: str | None, passage: str, branch: str, view: str | None, head: int, word_branch: str, opacity: float, stretch: bool) -> tuple:
        explanation = explain_pair(image, passage)
        p = explanation.prediction
        return (
            (image, passage), explanation, verdict_html(p), votes_html(p, pipe.config.temperature), *show_gate(explanation, branch, opacity, stretch),
            *show_map(explanation, view, head, opacity, stretch), show_attention(explanation, word_branch, stretch),
        )  # fmt: skip

    def show_gate(explanation: Explanation | None, branch: str, opacity: float, stretch: bool) -> tuple:
        if explanation is None:
            return WAITING, None, ""
        return gate_html(explanation, branch, stretch), *map_figure(explanation, f"gate:{branch}", 0, opacity, stretch)

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

    def forget(question: tuple | None, image: str | None, passage: str) -> tuple:
        """An answer must not stand beside a picture or a passage that it is not about. (The examples' own answer may be there first.)"""
        if question == (image, passage):
            return (gr.skip(),) * len(shown)
        return None, None, WAITING, "", "", None, "", None, "", ""

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

    with gr.Blocks(title="Do picture and passage smell alike?", delete_cache=(LIFETIME, LIFETIME)) as demo:
        gr.Markdown(
            "# Do this picture and this passage evoke the same smell?\nUpload a picture, paste a historical passage (English, German, French, "
            "Italian, Slovenian), and see the model's answer and what happened inside it. Uploads and answers are deleted within two hours."
        )
        gr.HTML(weights_banner(pipe, problem))
        state = gr.State(None, time_to_live=LIFETIME)
        question = gr.State(None, time_to_live=LIFETIME)
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
                    with gr.Tab("Vote"):
                        votes = gr.HTML(elem_id="votes")
                    with gr.Tab("TSF gate"):
                        branch = gr.Radio(branches, value=branches[0][1], label="Image branch", elem_id="branch")
                        gate = gr.HTML(elem_id="gate")
                        gate_map = gr.Image(
                            label="Image share of each patch", interactive=False, buttons=["download"], elem_id="gate-map", format="png",
                            alt_text="The picture with the image share of each patch laid over it; the legend below gives the values",
                        )  # fmt: skip
                        gate_legend = gr.HTML()
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
        shown = [question, state, verdict, votes, gate, gate_map, gate_legend, attention_map, attention_legend, words]
        given = [image, passage, branch, view, head, word_branch, opacity, stretch]
        asked = [gr.on([button.click, passage.submit], run, given, shown, concurrency_id="model", api_visibility="private")]
        with examples_at:
            rows = [[str(ASSETS / "examples" / name), text] for name, text in EXAMPLES]
            examples = gr.Examples(rows, [image, passage], label="Examples (answer at once)", cache_examples=False, api_visibility="private")
        asked.append(examples.load_input_event.then(run, given, shown, concurrency_id="model", api_visibility="private"))
        for event in asked:
            event.success(None, js=SHOW_VERDICT, api_visibility="private")
            # The picture or the passage may have changed while the model was at work.
            event.then(forget, [question, image, passage], shown, queue=False, show_progress="hidden", api_visibility="private")
        drawing = {"queue": False, "show_progress": "hidden", "trigger_mode": "always_last", "api_visibility": "private"}
        redrawn = [opacity.change, stretch.change]
        gr.on([branch.change, *redrawn], show_gate, [state, branch, opacity, stretch], [gate, gate_map, gate_legend], **drawing)
        gr.on(
            [view.change, head.change, *redrawn], show_map, [state, view, head, opacity, stretch], [attention_map, attention_legend], **drawing
        )
        gr.on([image.change, passage.change], forget, [question, image, passage], shown, **drawing)
        view.change(show_head, view, head, **drawing)
        gr.on([word_branch.change, stretch.change], show_attention, [state, word_branch, stretch], words, **drawing)
        demo.load(None, js=LIVE_VERDICT, api_visibility="private")
        answer, overlays = gr.JSON(visible=False, label="answer"), gr.Gallery(visible=False, label="overlays")
        gr.Button(visible=False).click(predict, [image, passage], answer, api_name="predict", concurrency_id="model")
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
