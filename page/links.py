"""Words and patches tied to each other by the gate: choose either, see the other. Runs in the browser alone."""

from typing import Any

import numpy as np

from musti_model import Explanation

from .board import ROVING, data_url, literal, place_name
from .language import later, say

CHANGED = later("Through the gate each word meets some patches of the picture. The colour is what that meeting changed in the answer.")
LOOKED_FOR = later("Each word looks for the patches that fit what it means. The colour is how much of a patch a word met: the patches of one word add up to 1.")
NOTHING: dict[str, Any] = {"words": [], "cells": [], "links": [], "picture": "", "shape": "1 / 1", "columns": 1, "rows": 1, "told": {}}
TEMPLATE = """<div class="board links">{{#if value.words}}
<p class="passage" role="group" aria-label="{{value.told.words}}">{{#each value.words}}<button type="button" class="strike" data-word="{{@index}}">{{this}}</button> {{/each}}</p>
<div class="cells" role="group" aria-label="{{value.told.patches}}" style="background-image:url('{{value.picture}}');aspect-ratio:{{value.shape}};
grid-template:repeat({{value.rows}},1fr) / repeat({{value.columns}},1fr)">{{#each value.cells}}<button type="button" data-cell="{{@index}}"
 tabindex="{{#if @index}}-1{{else}}0{{/if}}" aria-label="{{this}}"></button>{{/each}}</div><p class="told" aria-live="polite">{{value.told.choose}}</p>{{/if}}</div>"""
# Orange raises the logit, purple lowers it, as everywhere on the page; the strongest link of what was chosen has the full colour.
SCRIPT = (
    ROVING
    + """
const all = (kind) => [...element.querySelectorAll(`button[data-${kind}]`)];
const show = (chosen, others, values) => {
  const top = Math.max(...values.map(Math.abs), 1e-12);
  others.forEach((b, i) => {
    const part = Math.sqrt(Math.abs(values[i]) / top) * .8;
    b.style.backgroundColor = values[i] < 0 ? `rgb(84 39 136 / ${part})` : `rgb(179 88 6 / ${part})`;
    b.style.color = part > .5 && b.dataset.word ? "#fff" : "";
  });
  const best = values.reduce((a, v, i) => Math.abs(v) > Math.abs(values[a]) ? i : a, 0);
  const name = (b) => b.innerText || b.getAttribute("aria-label");
  const found = {a: name(chosen), b: name(others[best]), v: (values[best] >= 0 ? "+" : "") + values[best].toPrecision(3)};
  const told = props.value.told;
  element.querySelector(".told").textContent = (values.some((v) => v !== 0) ? told.meets : told.none).replace(/\\[([abv])\\]/g, (_, key) => found[key]);
};
const choose = (e) => {
  const b = e.target.closest("button[data-word], button[data-cell]");
  if (!b) return;
  [...all("word"), ...all("cell")].forEach((x) => { x.style.backgroundColor = ""; x.style.color = ""; x.classList.toggle("chosen", x === b); });
  const links = props.value.links;
  if (b.dataset.word) show(b, all("cell"), links[+b.dataset.word]);
  else show(b, all("word"), links.map((row) => row[+b.dataset.cell]));
};
element.addEventListener("click", choose);
element.addEventListener("mouseover", choose);
element.addEventListener("focusin", choose);
"""
)


def links_value(explanation: Explanation | None, branch: str) -> dict[str, Any]:
    """What the component needs for one branch: of a gate that opens word by word, which patches each word met, of the scalar gate, what that changed;
    nothing where tokens have no place or there is no gate."""
    links, by_word = (None, False) if explanation is None else _links(explanation, branch)
    if links is None:
        return NOTHING
    rows, columns = links.shape[1:]
    image = explanation.image
    meets = say("“[a]” and “[b]” meet most: [v]") if by_word else say("“[a]” meets “[b]” most: [v] of the logit")
    return {
        "words": [literal(w) for w in explanation.words],
        "cells": [place_name(r, c) for r in range(rows) for c in range(columns)],
        "links": np.vectorize(lambda v: float(f"{v:.3g}"), otypes=[float])(links.reshape(len(links), -1)).tolist(),
        "picture": data_url(image), "shape": f"{image.width} / {image.height}", "rows": rows, "columns": columns,
        "told": {
            "words": say("Words"), "patches": say("Patches; the arrow keys move"), "choose": say("Choose a word or a patch."),
            "meets": meets, "none": say("“[a]” meets none."),  # filled in by the browser
        },
    }  # fmt: skip


def _links(explanation: Explanation, branch: str) -> tuple[np.ndarray | None, bool]:
    """[words, rows, columns], and whether they are meetings of a gate that opens word by word."""
    gate, effect = explanation.gates.get(branch), explanation.gate_effect.get(branch)
    if gate is not None and explanation.gate_weights is None:
        return gate.meeting, True
    return (None if effect is None else effect.links), False
