"""Where a question is asked: picture, passage, button, examples."""

from html import escape
from pathlib import Path

import gradio as gr

from musti_model import MustiPipeline, Sentence

from ..examples import sources_html
from ..inputs import SafeImage
from ..language import Told, said_texts
from ..names import object_name
from ..visit import PRIVATE, SILENT
from .part import Values


class Asking:
    """Picture and passage; ``mark`` changes when another part has put both there and wants them asked."""

    def __init__(self, pipe: MustiPipeline, examples: list[tuple[Path, str]]) -> None:
        self.examples = examples
        with gr.Column(scale=2, min_width=300, elem_id="asking"):
            with gr.Column(elem_id="question"):
                # in the page, or its change would tell nobody
                self.mark = gr.Textbox(visible="hidden", elem_id="mark", label="")
                self.image = SafeImage(
                    type="filepath",
                    image_mode=None,
                    sources=["upload", "clipboard"],
                    label="Picture",
                    height=300,
                    elem_id="picture",
                )
                self.passage = gr.Textbox(
                    label="Passage",
                    lines=5,
                    max_lines=14,
                    elem_id="passage",
                    info="Ctrl+Enter compares.",
                    placeholder="Paste a passage that speaks of a smell …",
                )
                self.button = gr.Button("Compare", variant="primary", elem_id="run")
            with gr.Column(elem_id="below-question"):
                rows = [[str(path), text] for path, text in examples]
                gallery = gr.Examples(
                    rows, [self.image, self.passage], label="Examples (answer at once)", cache_examples=False, **PRIVATE
                )
                with gr.Accordion("Where the examples are from", open=False):
                    Told(sources_html)
                if pipe.objects:
                    with gr.Accordion(
                        Sentence("The {count} objects these weights know", count=len(pipe.objects)), open=False
                    ):
                        Told(lambda: escape(", ".join(map(object_name, pipe.objects))))
        self.chosen = gallery.load_input_event  # an example was clicked
        # Gradio's examples bring the components back as they were built, in English.
        self.chosen.then(self.relabel, None, [self.image, self.passage], **SILENT)

    def relabel(self) -> Values:
        """Picture and passage in the visitor's language."""
        return {component: gr.update(**said_texts(component)) for component in (self.image, self.passage)}

    def filled(self, number: int, mark: str) -> Values:
        """An example, counted from 0, in its place; a new mark has it asked."""
        picture, passage = self.examples[number]
        return {self.image: str(picture), self.passage: passage, self.mark: mark}
