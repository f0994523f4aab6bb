"""The tab "About": how to read the page, a worked example, the weights and their scores, the paper, how to cite."""

import json
import re
from pathlib import Path

from musti_model import MustiPipeline

GUIDE = """## How to read this page

1. **The answer** is a probability of YES against a threshold that was chosen on development pairs. Near the threshold it is called close; when the model reads
   none of its objects in the passage, it says that it cannot tell.
2. **Why** shows what the answer hangs on. Orange speaks for YES, purple against it, in units of the logit: each word is struck out and read alone, blocks of the
   picture are hidden and shown, parts are looked at enlarged. Below stands how faithful this very explanation is, against random ones.
3. **What if** lets you test it: strike words, blank out regions, shut the gate, leave out a branch.
4. **TSF gate** shows how much of the picture goes into the text before it is read, word by word and patch by patch, and what that changes in the answer.
5. **Overlays** and **Words** show attention and Grad-CAM: where the model looked. That is not why it answered.
6. **Vote** shows how the two image branches add up.

## A worked example

Choose the first example, the candle with *“She blew out the candle …”*. The answer is YES. Under **Why**, one word is orange: *candle*. Under **What if**, click
it away: the probability falls below the threshold, although wick and wax still stand there, because these small weights know the word but not the things around it.
Put it back, and draw over the candle in the picture. Then choose the second example: the same picture with a German passage about a horse is a NO, and **Why**
says which word the passage would have needed.
"""
PAPER = """## The paper

The task is MUSTI of MediaEval 2022 and 2023: whether a picture and a passage evoke the same smell. The model is that of MMM2024, *Image-guided Feature Extractor on
the MUSTI dataset* (MediaEval 2023): ViT and ResNet image encoders, a multilingual BERT, the text selection feature gate, a cosine a branch and a vote.

## How to cite

Cite the paper for the method, MUSTI (Hürriyetoğlu et al., MediaEval 2022) for the task, and this page by its address, the name and revision of the weights above, and the day.
"""


def card_markdown(pipe: MustiPipeline) -> str:
    """The card that lies with the weights, without its header block; a sentence where there is none."""
    try:
        text = (Path(pipe.weights.folder or ".") / "README.md").read_text(encoding="utf-8") if pipe.weights.folder else ""
    except (OSError, UnicodeDecodeError):
        text = ""
    if not text:
        return "## These weights\n\nNo card lies with these weights."
    text = re.sub(r"!\[[^\]]*\]\([^)]*\)|<[^>]*>", "", text)  # a badge would be fetched from elsewhere
    if text.startswith("---"):
        text = text.split("---", 2)[-1]
    return "## These weights\n\n" + text.strip().replace("\n# ", "\n### ").replace("\n## ", "\n### ").removeprefix("# ")


def faithfulness_markdown(assets: Path) -> str:
    """The measured faithfulness of the embedded starter's explanations; "" where it was not measured."""
    table, numbers = assets / "faithfulness" / "faithfulness.md", assets / "faithfulness" / "faithfulness.json"
    if not table.is_file() or not numbers.is_file():
        return ""
    weights = json.loads(numbers.read_text())["weights"]
    return f"## How true the explanations are\n\nMeasured with {weights}; low deletion and high insertion are good.\n\n{table.read_text()}"
