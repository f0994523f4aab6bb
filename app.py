"""The page: upload a picture and a historical passage, see whether both evoke the same smell, and why. Wires components to the pipeline.

Importing this module starts and downloads nothing; ``python app.py`` does.
"""

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

from musti_model import MustiPipeline, WeightsError
from musti_model.figures import overlay
from musti_model.weights import STARTER
from page.about import about_tab
from page.batch import batch_tab
from page.calls import Calls, calls_of, sentence
from page.language import say, speak
from page.many import many_tab
from page.pair import LIFETIME, PairTab
from page.views import weights_banner

ASSETS = Path(__file__).parent / "assets"
# Screen readers are told of what appears.
LIVE = """() => document.querySelectorAll("#verdict, #altered, #faithful, #many-told, #batch-told").forEach((e) => e.setAttribute("aria-live", "polite"))"""
EXAMPLES = [
    ["candle.jpg", "She blew out the candle, and the smell of the wick and the warm wax lingered in the dark chamber."],
    ["candle.jpg", "Das Pferd dampfte nach dem Ritt, und der ganze Stall roch nach Schweiß und Leder."],
    ["china.jpg", "La vieille maison sentait la cire et le bois humide ; toutes les maisons de la rue étaient fermées."],
    ["lemons.jpg", "Si odora il limone e si spremono i limoni, e l'odore acuto rimane sulle mani."],
    ["flower.jpg", "She pressed the nosegay to her face; the roses and the other flowers filled the whole chamber with their scent."],
]


EXAMPLE_FILES = [(ASSETS / "examples" / name, text) for name, text in EXAMPLES]


class SafeImage(gr.Image):
    """An image input whose unreadable files end in one sentence instead of a server path."""

    def preprocess(self, payload: Any) -> Any:
        """As gr.Image, but any failure becomes a sentence."""
        try:
            return super().preprocess(payload)
        except Exception as error:
            raise gr.Error(say("This file is not a picture we can read; try a JPEG or PNG."), print_exception=False) from error

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
    calls = calls_of(pipe, on_gpu)
    with gr.Blocks(title="Do picture and passage smell alike?", delete_cache=(LIFETIME, LIFETIME)) as demo:
        gr.Markdown(
            "# Do this picture and this passage evoke the same smell?\nUpload a picture, paste a historical passage (English, German, French, "
            "Italian, Slovenian), and see the model's answer and why. Uploads and answers are deleted within two hours."
        )
        gr.HTML(lambda: weights_banner(pipe, problem))
        with gr.Tabs() as pages:
            with gr.Tab("One pair", id="pair"):
                pair = PairTab(calls, SafeImage, EXAMPLE_FILES, demo)
            with gr.Tab("Compare many"):
                many_tab(SafeImage, calls.rank, calls.explain, sentence)
            with gr.Tab("Batch"):
                batch_tab(calls.answer_many, sentence)
            with gr.Tab("About"):
                about_tab(pipe, ASSETS, pages, pair)
        demo.load(None, js=LIVE, api_visibility="private")
        speak(demo)
        endpoints(calls)
    return demo.queue(max_size=20, default_concurrency_limit=1)


def endpoints(calls: Calls) -> None:
    """What machines may ask: /predict, /explain, /rank."""

    def predict(image: str, passage: str) -> dict:
        """Whether a picture and a passage evoke the same smell.

        Args:
            image: the picture.
            passage: the historical text.

        Returns: label, probability, threshold, similarities, notices.
        """
        return calls.predict(image, passage).to_json()

    def explain(image: str, passage: str) -> tuple[dict, list]:
        """The answer with words, evidence, gate, attention, and the overlay pictures (at most 1000 px a side).

        Args:
            image: the picture.
            passage: the historical text.
        """
        explanation = calls.explain(image, passage)
        overlays = [(overlay(explanation.image, values), name) for name, values in explanation.maps.items()]
        return explanation.prediction.to_json() | explanation.manifest(), overlays

    def rank(images: list[str], passages: list[str]) -> list[dict]:
        """One picture against up to 50 passages, or up to 20 pictures against one passage, best first.

        Args:
            images: the pictures.
            passages: the historical texts.

        Returns: for each: index (in the list given), label, probability, threshold, similarities, notices.
        """
        return [{"index": i} | p.to_json() for i, p in calls.rank(images, passages)]

    image = SafeImage(type="filepath", image_mode=None, visible=False, label="image")
    passage, answer = gr.Textbox(visible=False, label="passage"), gr.JSON(visible=False, label="answer")
    overlays = gr.Gallery(visible=False, label="overlays")
    images, passages = gr.File(visible=False, file_count="multiple", label="images"), gr.JSON(visible=False, label="passages")
    order = gr.JSON(visible=False, label="answers")
    for function, given, told in (
        (predict, [image, passage], answer), (explain, [image, passage], [answer, overlays]), (rank, [images, passages], order),
    ):  # fmt: skip
        gr.Button(visible=False).click(function, given, told, api_name=function.__name__, concurrency_id="model")


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
