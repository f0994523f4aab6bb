"""What machines may ask, with gradio_client, curl or as MCP tools."""

from typing import Any

import gradio as gr

from musti_model.figures import overlay

from .calls import Calls
from .inputs import SafeFile, SafeImage, Texts
from .visit import FAST, MANY, SLOW


def endpoints(calls: Calls) -> None:
    """What machines may ask: /predict, /explain, /rank, /rank_passages."""

    def predict(image: str, passage: str) -> dict[str, Any]:
        """Whether a picture and a passage evoke the same smell.

        Args:
            image: the picture.
            passage: the historical text.

        Returns: label, probability, threshold, similarities, notices, unsure, objects_in_picture,
            objects_in_passage.
        """
        return calls.predict(image, passage).to_json()

    def explain(image: str, passage: str) -> tuple[dict[str, Any], list[tuple[Any, str]]]:
        """The answer with words, evidence, gate, attention, and the overlay pictures (at most 1000 px a side).

        Args:
            image: the picture.
            passage: the historical text.
        """
        explanation = calls.explain(image, passage)
        overlays = [(overlay(explanation.image, values), name) for name, values in explanation.maps.items()]
        return explanation.prediction.to_json() | explanation.manifest(), overlays

    def rank(images: list[str], passages: list[str]) -> list[dict[str, Any]]:
        """One picture against up to 50 passages, or up to 20 pictures against one passage, best first.

        Args:
            images: the pictures.
            passages: the historical texts.

        Returns: for each: index (in the list given), label, probability, threshold, similarities, notices, unsure,
            objects_in_picture, objects_in_passage.
        """
        return [{"index": i} | p.to_json() for i, p in calls.rank(images, passages)]

    # Gradio's MCP server offers what is not of another type, and cannot hand on a list of files
    vars(rank)["_mcp_type"] = "endpoint"

    def rank_passages(image: str, passages: list[str]) -> list[dict[str, Any]]:
        """One picture against up to 50 passages, best first.

        Args:
            image: the picture.
            passages: the historical texts.

        Returns: for each: index (in the list given), label, probability, threshold, similarities, notices, unsure,
            objects_in_picture, objects_in_passage.
        """
        return rank([image] if image else [], passages)

    image = SafeImage(type="filepath", image_mode=None, visible=False, label="image")
    passage, answer = gr.Textbox(visible=False, label="passage"), gr.JSON(visible=False, label="answer")
    overlays = gr.Gallery(visible=False, label="overlays")
    images, passages = (
        SafeFile(visible=False, file_count="multiple", label="images"),
        Texts(visible=False, label="passages"),
    )
    order = gr.JSON(visible=False, label="answers")
    for function, given, told, lane in (
        (predict, [image, passage], answer, FAST),
        (explain, [image, passage], [answer, overlays], SLOW),
        (rank, [images, passages], order, MANY),
        (rank_passages, [image, passages], order, MANY),
    ):
        gr.Button(visible=False).click(
            function, given, told, api_name=function.__name__, **lane | {"api_visibility": "public"}
        )
