"""The page: upload a picture and a historical passage, see whether both evoke the same smell, and why. Wires components to the pipeline.

Importing this module starts and downloads nothing; ``python app.py`` does.
"""

import os

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # nothing phones home; must be set before gradio is imported

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

from musti_model import Explanation, InputError, MustiPipeline, Prediction, WeightsError
from musti_model.figures import legend_html, overlay, scale_of, words_html
from musti_model.weights import STARTER

ASSETS = Path(__file__).parent / "assets"
BRANCH_NAMES = {"vit": "ViT", "resnet": "ResNet", "swin": "Swin"}
VIEW_NAMES = {"rollout": "attention rollout", "gradcam": "Grad-CAM", "gate": "gate: image share of each patch"}
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
    card = pipe.card.get("test", {})
    score = (
        f"F1-macro {card['f1_macro']:.2f} on {card['pairs']} held-out proxy pairs. "
        if "f1_macro" in card
        else "No measured score is stored with these weights. "
    )
    caveat = escape(pipe.card.get("caveat", ""))
    warning = f'<p class="banner warning" role="alert">{escape(problem)}</p>' if problem else ""
    return (
        f'{warning}<div class="banner" id="weights"><strong>Weights:</strong> {escape(pipe.name)} '
        f"({escape(pipe.revision)}). {score}{caveat}</div>"
    )


def verdict_html(prediction: Prediction) -> str:
    """The answer in words, the probability against the threshold, the notices."""
    unsure = any("found none of the" in n for n in prediction.notices)
    yes = prediction.label == "YES"
    title = "YES: the same smell" if yes else "NO: not the same smell"
    if unsure:
        title = "The model cannot tell"
    p, t = prediction.probability, prediction.threshold
    side = "above" if yes else "below"
    notices = "".join(f'<div class="notice">{escape(n)}</div>' for n in prediction.notices)
    seen = ", ".join(f"{escape(n)} ({v:.0%})" for n, v in prediction.objects_in_picture)
    read = ", ".join(f"{escape(w)} → {escape(n)}" for n, w in prediction.objects_in_passage)
    naming = f"<p>In the picture it would see: {seen}.<br>In the passage it reads: {read or 'none of its objects'}.</p>" if seen else ""
    return (
        f'<div class="verdict" aria-live="polite"><h2>{title}</h2><p>Probability of YES <strong>{p:.3f}</strong>, {side} the threshold {t:.3f}.</p>'
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


def gate_html(explanation: Explanation, branch: str) -> str:
    """The gate's numbers and the coloured passage."""
    if explanation.gate_weights is None:
        return "<p>These weights have no gate (fusion none).</p>"
    g = explanation.gate_weights
    return (
        f"<p>w_image = {g.w_image:+.4f}, w_text = {g.w_text:+.4f}, bias = {g.bias:+.4f}: the gate passes on "
        "LayerNorm(w_image · I + w_text · T + bias + T). <em>How to read it:</em> the brighter a word, the larger the picture's part in what the "
        "text encoder gets at that place; it shows where picture and text were mixed, not that the word decided the answer.</p>"
        + words_html(explanation.passage, explanation.word_spans, explanation.gates[branch].words, "image share")
    )


def attention_html(explanation: Explanation, branch: str) -> str:
    """The passage coloured by the text encoder's attention."""
    values = explanation.word_attention[branch]
    return words_html(explanation.passage, explanation.word_spans, values, "attention of the summary token")


def map_figure(explanation: Explanation, view: str, head: int, opacity: float) -> tuple[Any, str]:
    """The overlay of one view, and its legend. ``head`` counts from 1; 0 is the view over all heads."""
    kind, _, branch = view.partition(":")
    if kind == "heads":
        values = explanation.head_map(branch, min(max(head, 1), len(explanation.heads[branch])) - 1)
        label = f"class-token attention of head {head}, last layer"
    else:
        values, label = explanation.maps[view], VIEW_NAMES[kind]
    return overlay(explanation.image, values, opacity), legend_html(*scale_of(values), label)


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
    explain_pair = on_gpu(pipe.explain)
    predict_pair = on_gpu(pipe.__call__)

    def checked(function: Callable, image: str | None, passage: str) -> Any:
        if not image:
            raise gr.Error("Choose a picture first.", print_exception=False)
        try:
            return function(image, passage)
        except InputError as error:
            raise gr.Error(str(error), print_exception=False) from error

    def run(image: str | None, passage: str, branch: str, view: str, head: int, opacity: float) -> tuple:
        explanation = checked(explain_pair, image, passage)
        p = explanation.prediction
        return (
            explanation, verdict_html(p), votes_html(p, pipe.config.temperature),
            *show_gate(explanation, branch, opacity), *show_map(explanation, view, head, opacity), show_attention(explanation, branch),
        )  # fmt: skip

    def show_gate(explanation: Explanation | None, branch: str, opacity: float) -> tuple:
        if explanation is None:
            return "", None, ""
        name = f"gate:{branch}"
        picture, legend = (None, "") if name not in explanation.maps else map_figure(explanation, name, 0, opacity)
        return gate_html(explanation, branch), picture, legend

    def show_map(explanation: Explanation | None, view: str, head: int, opacity: float) -> tuple:
        return (None, "") if explanation is None else map_figure(explanation, view, int(head), opacity)

    def show_attention(explanation: Explanation | None, branch: str) -> str:
        return "" if explanation is None else attention_html(explanation, branch)

    def predict(image: str, passage: str) -> dict:
        """Whether a picture and a passage evoke the same smell.

        Args:
            image: the picture.
            passage: the historical text.

        Returns: label, probability, threshold, similarities, notices.
        """
        return checked(predict_pair, image, passage).to_json()

    def explain(image: str, passage: str) -> tuple[dict, list]:
        """The answer with words, gate weights and shares, and the overlay pictures.

        Args:
            image: the picture.
            passage: the historical text.
        """
        explanation = checked(explain_pair, image, passage)
        overlays = [(overlay(explanation.image, values), name) for name, values in explanation.maps.items()]
        return explanation.prediction.to_json() | explanation.manifest(), overlays

    with gr.Blocks(title="Do picture and passage smell alike?", delete_cache=(3600, 3600)) as demo:
        gr.Markdown(
            "# Do this picture and this passage evoke the same smell?\nUpload a picture, paste a historical passage (English, German, French, "
            "Italian, Slovenian), and see the model's answer and what happened inside it. Uploads are deleted within two hours."
        )
        gr.HTML(weights_banner(pipe, problem))
        state = gr.State(None)
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
                        gate_map = gr.Image(label="Image share of each patch", interactive=False, buttons=["download"], elem_id="gate-map", format="png")
                        gate_legend = gr.HTML()
                    with gr.Tab("Overlays"):
                        view = gr.Dropdown(views, value=views[0][1] if views else None, label="Overlay", elem_id="view")
                        heads = max([1, *(h.backbone.blocks[-1].attn.num_heads for h in pipe.model.branches.values() if h.is_vit)])
                        head = gr.Slider(1, heads, value=1, step=1, label="Head (for “one head”)", elem_id="head")
                        opacity = gr.Slider(0, 1, value=0.55, step=0.05, label="Opacity", elem_id="opacity")
                        attention_map = gr.Image(label="Overlay", interactive=False, buttons=["download"], elem_id="attention-map", format="png")
                        attention_legend = gr.HTML()
                        gr.Markdown(
                            "Attention and Grad-CAM show where the model looked and which regions raised its score; "
                            "neither proves why it answered as it did."
                        )
                    with gr.Tab("Words"):
                        word_branch = gr.Radio(branches, value=branches[0][1], label="Text read with the picture of branch", elem_id="word-branch")
                        words = gr.HTML(elem_id="words")
                        gr.Markdown("Last-layer attention of the text encoder's summary token, mean of its heads.")
        shown = [state, verdict, votes, gate, gate_map, gate_legend, attention_map, attention_legend, words]
        given = [image, passage, branch, view, head, opacity]
        gr.on([button.click, passage.submit], run, given, shown, concurrency_id="model", api_visibility="private")
        with examples_at:
            rows = [[str(ASSETS / "examples" / name), text] for name, text in EXAMPLES]
            examples = gr.Examples(rows, [image, passage], label="Examples (answer at once)", cache_examples=False, api_visibility="private")
        examples.load_input_event.then(run, given, shown, concurrency_id="model", api_visibility="private")
        gr.on([branch.change, opacity.release], show_gate, [state, branch, opacity], [gate, gate_map, gate_legend], queue=False, api_visibility="private")
        gr.on(
            [view.change, head.release, opacity.release], show_map, [state, view, head, opacity], [attention_map, attention_legend],
            queue=False, api_visibility="private",
        )  # fmt: skip
        word_branch.change(show_attention, [state, word_branch], words, queue=False, api_visibility="private")
        answer, overlays = gr.JSON(visible=False), gr.Gallery(visible=False)
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
