"""The tab "About": how to read the page, a guided tour, how true the explanations are, the weights, the paper, how to
cite."""

import json
import re
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from musti_model import MustiPipeline

from ..language import Told, later, say
from ..weights import weights_html
from .pair import PairTab

GUIDE = (
    (
        "**The answer** is a probability of YES against a threshold that was chosen on development pairs. Near the "
        "threshold it is called close; when the model reads none of its objects in the passage, or is not sure what "
        "the picture shows, it says that it cannot tell."
    ),
    (
        "**The board** under the answer shows the text selection feature (TSF) gate: how far the picture opened it at "
        "each word, and where in the picture each of these words looked. Point at a word or at a place; a click keeps "
        "it. Its switch tells what the answer would be with the gate shut."
    ),
    (
        "**Why** shows what the answer hangs on. Orange speaks for YES, purple against it, in units of the logit: each "
        "word is struck out and read alone, parts of the picture are hidden at random, and parts are looked at "
        "enlarged. With each stands how faithful this very explanation is, against random ones."
    ),
    "**What if** lets you test it: strike words, blank out regions, shut the gate, leave out a branch.",
    "**Gate effect** shows what the gate changed in the answer, word by word and patch by patch.",
    "**Attention** shows attention and Grad-CAM: where the model looked. That is not why it answered.",
    "**Vote** shows how the image branches add up.",
)


KINDS = {"words": later("Words"), "regions": later("Regions")}
COLUMNS = (later("deletion"), later("insertion"), later("better than random"), later("pointing"))
METHODS = (
    later("occlusion"),
    later("relevance"),
    later("in place and close up"),
    later("in place"),
    later("close up"),
    later("contribution"),
)
PAPER = (
    "The task is MUSTI of MediaEval 2022 and 2023: whether a picture and a passage evoke the same smell. The method "
    "is that of MMM2024, *Image-guided Feature Extractor on the MUSTI dataset* (MediaEval 2023): ViT and ResNet "
    "image encoders, a multilingual BERT, the text selection feature gate, a cosine a branch and a vote. "
    "The weights above may have other encoders."
)
CITE = (
    "Cite the paper for the method, MUSTI (Hürriyetoğlu et al., MediaEval 2022) for the task, and this page by its "
    "address, the name and revision of the weights above, and the day."
)


def heading(text: str, elem_id: str | None = None) -> gr.HTML:
    """A heading in the visitor's language."""
    return Told(lambda: f"<h2>{say(text)}</h2>", elem_id=elem_id, elem_classes="prose")


def measured_scores(assets: Path) -> dict[str, Any] | None:
    """What ``benchmarks.faithfulness`` wrote last; None where it never did."""
    file = assets / "faithfulness" / "faithfulness.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None


def about_tab(pipe: MustiPipeline, scores: dict[str, Any] | None, pages: gr.Tabs, pair: PairTab) -> None:
    """Builds the tab. scores: see ``measured_scores``; pages, pair: where the tour leads."""
    heading("How to read this page")
    with gr.Column(elem_id="guide"):
        for text in GUIDE:
            gr.Markdown(text)
    heading("A guided tour")
    gr.Markdown("Written for the embedded starter weights; others may answer otherwise.")
    pair.tour.starts(gr.Button("Show me around", size="sm", min_width=140, elem_id="tour-from-here"), pages)
    heading("How true the explanations are")
    Told(lambda: faithfulness_html(scores), elem_id="measured")
    heading("These weights", "card-title")
    Told(lambda: weights_html(pipe), elem_id="weights-told")
    gr.Markdown("The card is in the language of whoever wrote it.")
    gr.Markdown(card_markdown(pipe), elem_id="card")
    heading("The paper")
    gr.Markdown(PAPER)
    heading("How to cite")
    gr.Markdown(CITE)


def card_markdown(pipe: MustiPipeline) -> str:
    """The card that lies with the weights, without its header block; a sentence where there is none."""
    text = pipe.weights.readme()
    if not text:
        return later("No card lies with these weights.")
    # A badge would be fetched from elsewhere, and tags are not for a stranger to write: neither may come about by
    # taking others out.
    text = re.sub(r"<[^<>]*>", "", text).replace("<", "&lt;")
    text = re.sub(r"!+(?=\[)", "", re.sub(r"!\[[^\[\]]*\]\([^()]*\)", "", text))
    if text.startswith("---"):
        text = text.split("---", 2)[-1]
    return text.strip().replace("\n# ", "\n### ").replace("\n## ", "\n### ").removeprefix("# ")


def faithfulness_html(measured: dict[str, Any] | None) -> str:
    """The measured faithfulness of the embedded starter's explanations for the whole model; "" where it was not
    measured."""
    if measured is None:
        return ""
    told = say(
        (
            "Measured with {weights} on {pairs} pairs that were answered YES rightly. Deletion takes away first what "
            "is said to matter most: low is good. Insertion puts it back first: high is good. Pointing: the top word "
            "names the shared object; the share of positive evidence in the quarter of four pictures that the passage "
            "speaks of."
        ),
        weights=escape(measured["weights"]),
        pairs=measured["pairs"],
    )
    return f"<p>{told}</p>" + "".join(_table(kind, measured[kind]) for kind in ("words", "regions"))


def _table(kind: str, rows: dict[str, dict[str, Any]]) -> str:
    heads = "".join(f"<th>{say(h)}</th>" for h in (KINDS[kind], *COLUMNS))
    lines = []
    for name, row in sorted(rows.items(), key=lambda r: r[1]["deletion"]):
        if name in METHODS:  # of the whole model
            pointing = row.get("pointing", row.get("grid"))
            cells = (
                f"{row['deletion']:.3f}",
                f"{row['insertion']:.3f}",
                f"{row['better']:.0%}",
                "" if pointing is None else f"{pointing:.0%}",
            )
            lines.append(f"<tr><td>{say(name)}</td>" + "".join(f"<td>{c}</td>" for c in cells) + "</tr>")
    chance = next(iter(rows.values()))
    lines.append(
        f"<tr><td>{say('random')}</td><td>{chance['random_deletion']:.3f}</td><td>{chance['random_insertion']:.3f}</td><td></td><td></td></tr>"
    )
    return (
        '<div class="scroll"><table '
        f'class="votes"><thead><tr>{heads}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'
    )
