"""The board of "What if": words that can be struck out and a picture whose cells can be blanked out, by mouse, touch or keyboard."""

import base64
import io
import re
from typing import Any

from PIL import Image

from musti_model import Alteration, Explanation, Prediction
from musti_model.fusion import Opened
from musti_model.methods.perturb import CELLS

from .language import number, say
from .views import meter_html

SIDE = 480  # px of the picture on the board
EMPTY: dict[str, Any] = {"words": [], "cells": [], "picture": "", "shape": "1 / 1", "columns": CELLS, "told": {}}
# Handlebars escapes HTML, but Gradio then evaluates the whole as a JavaScript template: see ``literal``.
TEMPLATE = """<div class="board">{{#if value.picture}}
<p class="passage" role="group" aria-label="{{value.told.words}}">{{#each value.words}}<button type="button" class="strike{{#if off}} off{{/if}}"
 data-list="words" data-at="{{@index}}" aria-pressed="{{off}}">{{text}}</button> {{/each}}</p>
<div class="cells" role="group" aria-label="{{value.told.cells}}" style="background-image:url('{{value.picture}}');aspect-ratio:{{value.shape}}">
{{#each value.cells}}<button type="button" class="{{#if off}}off{{/if}}" data-list="cells" data-at="{{@index}}"
 tabindex="{{#if here}}0{{else}}-1{{/if}}" aria-pressed="{{off}}" aria-label="{{text}}">
</button>{{/each}}</div>{{/if}}</div>"""
# The cells are one stop for the Tab key; the arrow keys move among them.
ROVING = """
element.addEventListener("focusin", (e) => {  // Shift+Tab comes back to where one was
  if (e.target.closest(".cells button")) element.querySelectorAll(".cells button").forEach((b) => { b.tabIndex = b === e.target ? 0 : -1; });
});
element.addEventListener("keydown", (e) => {
  const columns = props.value.columns, step = {ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns}[e.key];
  const cells = [...element.querySelectorAll(".cells button")], at = cells.indexOf(e.target);
  if (at < 0 || !step) return;
  e.preventDefault();
  cells[at + step]?.focus();
});
"""
# A drag draws on the page at once and is told to the server when it ends; Enter and Space arrive as a click without a pointer (detail 0).
SCRIPT = (
    ROVING
    + """
let drag = null;
const key = (b) => `[data-list="${b.dataset.list}"][data-at="${b.dataset.at}"]`;
const put = (changes, focus) => {
  const value = structuredClone(props.value);
  for (const [list, at, off] of changes) value[list][at].off = off;
  const [list, last] = changes.at(-1);  // the redrawn board keeps its Tab stop where one was
  if (list === "cells") value.cells.forEach((cell, at) => { cell.here = at === last; });
  props.value = value;
  trigger("input");
  if (focus) setTimeout(() => element.querySelector(focus)?.focus(), 50);
};
const under = (e) => document.elementFromPoint(e.clientX, e.clientY)?.closest("button[data-list]");
const draw = (b) => {
  if (!b || b.dataset.list !== drag.list || !element.contains(b)) return;
  b.classList.toggle("off", drag.off);
  drag.at.add(+b.dataset.at);
};
element.addEventListener("pointerdown", (e) => {
  const b = e.target.closest("button[data-list]");
  if (!b || e.button !== 0) return;
  drag = {list: b.dataset.list, off: !b.classList.contains("off"), at: new Set(), focus: key(b)};
  if (b.dataset.list === "cells") e.preventDefault();
  draw(b);
});
element.addEventListener("pointermove", (e) => { if (drag && drag.list === "cells") draw(under(e)); });
const end = () => {
  if (!drag) return;
  const done = drag;
  drag = null;
  put([...done.at].map((at) => [done.list, at, done.off]), done.focus);
};
document.addEventListener("pointerup", end);
document.addEventListener("pointercancel", () => {  // the browser took the touch for scrolling
  drag?.at.forEach((at) => element.querySelector(`[data-list="${drag.list}"][data-at="${at}"]`)?.classList.toggle("off", !drag.off));
  drag = null;
});
element.addEventListener("click", (e) => {
  const b = e.target.closest("button[data-list]");
  if (b && e.detail === 0) put([[b.dataset.list, +b.dataset.at, !b.classList.contains("off")]], key(b));
});
"""
)


def literal(text: str) -> str:
    """A text as a component's template may show it: without this a visitor's ``${...}`` would run, and a lone backslash or ``${`` break the page."""
    return re.sub(r"([\\$])", r"\\\1", text)


def board_value(explanation: Explanation | None) -> dict[str, Any]:
    """A fresh board for an explanation: nothing struck out, nothing blanked out."""
    if explanation is None:
        return EMPTY
    words = [{"text": literal(w), "off": False} for w in explanation.words]
    cells = [{"text": place_name(r, c), "off": False, "here": r == c == 0} for r in range(CELLS) for c in range(CELLS)]
    told = {"words": literal(say("Words to strike out")), "cells": literal(say("Regions to blank out; the arrow keys move"))}
    image = explanation.image
    return {"words": words, "cells": cells, "picture": data_url(image), "shape": f"{image.width} / {image.height}", "columns": CELLS, "told": told}


def place_name(row: int, column: int) -> str:
    """A place of a grid, counted from 0, as screen readers say it."""
    return say("row {row}, column {column}", row=row + 1, column=column + 1)


def data_url(image: Image.Image, side: int = SIDE) -> str:
    """A small JPEG of a picture as an address that fetches nothing."""
    small = image.copy()
    small.thumbnail((side, side))
    file = io.BytesIO()
    small.save(file, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


def alteration_of(value: dict[str, Any], gate: Opened, voting: list[str], branches: list[str]) -> Alteration:
    """What the board and the switches beside it ask for. The board comes from a browser: what is not on it is left out."""
    off = {name: [i for i, item in enumerate(value.get(name, [])) if isinstance(item, dict) and item.get("off")] for name in ("words", "cells")}
    cells = [divmod(i, CELLS) for i in off["cells"] if i < CELLS * CELLS]
    return Alteration(off["words"], cells, gate, [b for b in branches if b not in voting])


def what_if_html(prediction: Prediction, probability: float, alteration: Alteration) -> str:
    """The new probability beside the old one."""
    if not alteration.changes:
        told = say("Click words to strike them out; click or draw over the picture to blank it out. The new answer appears here.")
        return f"<p>{told}</p>"
    answer = say("cannot tell") if prediction.unsure else say(prediction.label)
    altered = say("YES") if probability >= prediction.threshold else say("NO")
    rows = "".join(
        f"<tr><td>{name}</td><td><strong>{number(p, '.3f')}</strong></td><td>{label}</td><td>{meter_html(p, prediction.threshold)}</td></tr>"
        for name, p, label in ((say("as it is"), prediction.probability, answer), (say("altered"), probability, altered))
    )
    turned = (prediction.probability >= prediction.threshold) != (probability >= prediction.threshold)
    sentence = say("That turns the answer.") if turned else say("The answer stays the same.")
    return f'<table class="votes whatif"><tbody>{rows}</tbody></table><p>{sentence}</p>'
