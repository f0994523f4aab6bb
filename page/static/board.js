// The board of "What if": a drag draws on the page at once and is told to the server when it ends; Enter and Space arrive as a click without a pointer (detail 0).

// The cells are one stop for the Tab key; the arrow keys move among them.
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
