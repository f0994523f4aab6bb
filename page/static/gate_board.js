// The gate board: the words of a passage filled by how far the gate opened, and where in the picture each of them looked. All of it from one answer of the
// server (``gate_board.py`` says what it holds); nothing is asked while one looks around.
const HUE = "230, 97, 0", FULL = 8; // a place is in full colour where a wide open word looks eight times as much as if it looked everywhere alike
const SHUT = 0.1; // an opening under which what the word met hardly counts
let board = null, chosen = null, pinned = false, shut = false, branch = "";
let asked = new URLSearchParams(location.search); // what the address asks of the first board

const make = (tag, attributes = {}, ...children) => {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
};
const fill = (text, values) => text.replace(/\{(\w+)\}/g, (_, name) => values[name]);
const digits = (x, count = 2) => x.toLocaleString(board.language, {minimumFractionDigits: count, maximumFractionDigits: count});
const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));

// Numbers ------------------------------------------------------------------------------------------------------------------------------

const shown = () => board.branches.filter((b) => !branch || b.name === branch);
const placed = () => shown().filter((b) => b.meeting); // the others' image tokens have no place in the picture
const opening = (at) => shut ? 0 : shown().reduce((sum, b) => sum + b.opening[at], 0) / shown().length;
const looked = (b, at, cell) => b.opening[at] * b.meeting[at * b.rows * b.columns + cell] / 255 * b.largest; // opening times meeting
const cellAt = (b, x, y) => Math.min(b.rows - 1, Math.floor(y * b.rows)) * b.columns + Math.min(b.columns - 1, Math.floor(x * b.columns));

// A branch's places for one word, or for all: of each place, the word that looked there most.
const places = (b, at) => {
  const cells = b.rows * b.columns, values = new Float32Array(cells);
  const words = at === null ? b.opening.keys() : [at];
  for (const w of words) for (let c = 0; c < cells; c++) values[c] = Math.max(values[c], looked(b, w, c) * cells / FULL);
  return values;
};

// How far each word met a place, 1 = the most that any word met anywhere.
const meetings = (x, y) => {
  const met = (at) => placed().reduce((sum, b) => sum + looked(b, at, cellAt(b, x, y)) * b.rows * b.columns, 0) / Math.max(1, placed().length);
  const values = board.words.map((_, at) => met(at) / FULL);
  return values.map((v) => Math.min(1, v));
};

// Drawing ------------------------------------------------------------------------------------------------------------------------------

const drawPlaces = (at) => {
  const canvas = element.querySelector("canvas"), context = canvas.getContext("2d");
  context.clearRect(0, 0, canvas.width, canvas.height);
  element.querySelector(".gate-picture img").classList.toggle("under-map", placed().length > 0 && !shut);
  if (shut) return;
  for (const b of placed()) {
    const small = make("canvas", {width: b.columns, height: b.rows}), pixels = new ImageData(b.columns, b.rows);
    places(b, at).forEach((v, c) => pixels.data.set([...HUE.split(", ").map(Number), 215 * Math.min(1, v) / placed().length], 4 * c));
    small.getContext("2d").putImageData(pixels, 0, 0);
    context.imageSmoothingEnabled = true;
    context.drawImage(small, 0, 0, canvas.width, canvas.height);
  }
};

const colourWords = (values) => element.querySelectorAll(".gate-word").forEach((word, at) => {
  word.style.backgroundColor = `rgba(${HUE}, ${(0.7 * values[at]).toFixed(3)})`;
});

const mostMet = (b, at) => {
  let best = 0;
  for (let c = 1; c < b.rows * b.columns; c++) if (looked(b, at, c) > looked(b, at, best)) best = c;
  return {row: Math.floor(best / b.columns) + 1, column: best % b.columns + 1, rows: b.rows, columns: b.columns};
};

const told = () => {
  if (shut) return board.texts.shut;
  if (chosen === null) return board.texts.whole;
  if (chosen.word !== undefined) {
    const at = chosen.word, parts = shown().map((b) => `${b.label} ${digits(b.opening[at])}`).join(", ");
    const [first] = placed(), where = opening(at) < SHUT ? board.texts.closed : first ? board.texts.looked : "";
    const values = {word: board.words[at], opening: digits(opening(at)), branches: parts, ...(first ? mostMet(first, at) : {})};
    return fill(board.texts.word + " " + where, values);
  }
  if (!placed().length) return board.texts.placeless;
  const values = meetings(chosen.x, chosen.y), order = [...values.keys()].sort((a, b) => values[b] - values[a]).slice(0, 3);
  const met = order.filter((at) => values[at] > 0.02).map((at) => `“${board.words[at]}” ${digits(values[at])}`);
  return fill(met.length ? board.texts.place : board.texts.nobody, {...chosen, words: met.join(", ")});
};

const draw = () => {
  const word = chosen?.word ?? null;
  drawPlaces(word);
  colourWords(chosen?.x === undefined ? board.words.map((_, at) => opening(at)) : meetings(chosen.x, chosen.y));
  element.querySelectorAll(".gate-word").forEach((w, at) => {
    w.classList.toggle("chosen", at === word);
    w.setAttribute("aria-pressed", String(pinned && at === word));
  });
  const cursor = element.querySelector(".gate-cursor");
  cursor.hidden = chosen?.x === undefined;
  if (!cursor.hidden) Object.assign(cursor.style, {left: `${chosen.x * 100}%`, top: `${chosen.y * 100}%`});
  element.querySelector(".gate-told").textContent = (pinned ? "📌 " : "") + told();
  element.querySelectorAll("[data-gate]").forEach((b) => b.setAttribute("aria-checked", String((b.dataset.gate === "shut") === shut)));
  element.querySelectorAll("[data-branch]").forEach((b) => b.setAttribute("aria-checked", String(b.dataset.branch === branch)));
  element.querySelectorAll("td[data-of], th[data-of]").forEach((cell) => cell.classList.toggle("here", (cell.dataset.of === "shut") === shut));
  element.dataset.view = viewed();
};

// What a link keeps of the board (``full_address.js``): gate, branch, and the word or the place that is pinned.
const viewed = () => {
  const view = new URLSearchParams(shut ? {"board-gate": "shut"} : {});
  if (branch) view.set("board-branch", branch);
  if (pinned) view.set("board-at", chosen.word ?? `${chosen.row}-${chosen.column}`);
  return view.toString();
};
const view = (wanted) => {
  shut = wanted.get("board-gate") === "shut";
  branch = board.branches.find((b) => b.name === wanted.get("board-branch"))?.name ?? "";
  const [, first, second] = /^(\d{1,4})(?:-(\d{1,4}))?$/.exec(wanted.get("board-at") ?? "") ?? [];
  const within = (number, count) => number >= 1 && number <= count;
  chosen = null;
  if (first && !second && first < board.words.length) chosen = {word: +first};
  if (second && board.places && within(first, finest().rows) && within(second, finest().columns)) chosen = place(first - 1, second - 1);
  pinned = chosen !== null;
};

// Choosing -----------------------------------------------------------------------------------------------------------------------------

const choose = (what, pin = false) => {
  if (pinned && !pin) return;
  const same = pin && pinned && JSON.stringify(what) === JSON.stringify(chosen);
  pinned = pin && !same && what !== null;
  chosen = same ? null : what;
  draw();
};
const finest = () => (placed().length ? placed() : shown()).reduce((a, b) => a.rows * a.columns >= b.rows * b.columns ? a : b);
const place = (row, column) => {
  const b = finest();
  return {row: row + 1, column: column + 1, rows: b.rows, columns: b.columns, x: (column + 0.5) / b.columns, y: (row + 0.5) / b.rows};
};
const placeUnder = (event) => {
  const box = element.querySelector(".gate-picture").getBoundingClientRect(), b = finest();
  const at = (value, count) => Math.max(0, Math.min(count - 1, Math.floor(value * count)));
  return place(at((event.clientY - box.top) / box.height, b.rows), at((event.clientX - box.left) / box.width, b.columns));
};

const listen = () => {
  const passage = element.querySelector(".gate-passage"), picture = element.querySelector(".gate-picture");
  const wordOf = (event) => {
    const word = event.target.closest(".gate-word");
    return word ? {word: +word.dataset.at} : null;
  };
  passage.addEventListener("pointerover", (e) => { if (e.pointerType !== "touch" && wordOf(e)) choose(wordOf(e)); });
  passage.addEventListener("pointerleave", (e) => { if (e.pointerType !== "touch") choose(null); });
  passage.addEventListener("focusin", (e) => { if (wordOf(e)) choose(wordOf(e)); });
  passage.addEventListener("click", (e) => { if (wordOf(e)) choose(wordOf(e), true); });
  passage.addEventListener("keydown", (e) => {
    const words = [...passage.querySelectorAll(".gate-word")], at = words.indexOf(e.target);
    const step = {ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1}[e.key];
    const to = e.key === "Home" ? 0 : e.key === "End" ? words.length - 1 : at + (step ?? NaN);
    if (at >= 0 && (e.key === "Enter" || e.key === " ")) { e.preventDefault(); choose({word: at}, true); }
    if (at < 0 || !words[to]) return;
    e.preventDefault();
    words[at].tabIndex = -1;
    words[to].tabIndex = 0;
    words[to].focus();
  });
  if (board.places) {
    picture.addEventListener("pointermove", (e) => { if (e.pointerType !== "touch") choose(placeUnder(e)); });
    picture.addEventListener("pointerleave", (e) => { if (e.pointerType !== "touch") choose(null); });
    picture.addEventListener("click", (e) => choose(placeUnder(e), true));
    picture.addEventListener("focus", () => { if (picture.matches(":focus-visible")) choose(place(0, 0)); });
    picture.addEventListener("blur", () => choose(null));
    picture.addEventListener("keydown", (e) => {
      const b = finest(), step = {ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0]}[e.key];
      const here = chosen?.row ? chosen : place(0, 0);
      if (e.key === "Enter" || e.key === " ") { e.preventDefault(); choose(here, true); }
      if (!step) return;
      e.preventDefault();
      pinned = false;
      const to = (value, count) => Math.max(0, Math.min(count - 1, value));
      choose(place(to(here.row - 1 + step[0], b.rows), to(here.column - 1 + step[1], b.columns)));
    });
  }
};
element.addEventListener("keydown", (e) => {
  if (e.key === "Escape" && board) { pinned = false; choose(null); }
});
element.addEventListener("click", (e) => {
  const button = e.target.closest("[data-gate], [data-branch]");
  if (!button) return;
  if (button.dataset.gate) shut = button.dataset.gate === "shut";
  else branch = button.dataset.branch;
  draw();
});

// Building -----------------------------------------------------------------------------------------------------------------------------

const radios = (label, name, options) => make(
  "div", {class: "gate-switch", role: "radiogroup", "aria-label": label}, make("span", {}, label),
  ...options.map(([value, text]) => {
    const button = make("button", {type: "button", role: "radio"}, text);
    button.dataset[name] = value;
    return button;
  }),
);
const answers = () => {
  const row = (name, learned, without) => {
    const cells = [make("th", {scope: "row"}, name), make("td", {}, learned), make("td", {}, without)];
    cells[1].dataset.of = "learned";
    cells[2].dataset.of = "shut";
    return make("tr", {}, ...cells);
  };
  const {learned, shut: off} = board.answers, signed = (x) => (x < 0 ? "−" : "+") + digits(Math.abs(x));
  return make("table", {class: "gate-answers"}, make("tbody", {},
    row("", board.texts.learned, board.texts.off),
    row(board.texts.answer, learned.answer, off.answer),
    row(board.texts.probability, digits(learned.probability, 3), digits(off.probability, 3)),
    ...board.branches.map((b) => row(fill(board.texts.vote, {branch: b.label}), signed(learned.votes[b.name]), signed(off.votes[b.name])))));
};
const legend = (text, of = "words") => make("span", {class: `gate-legend ${of}`}, text + " ", "0", make("i", {}), "1");

const build = (data, same) => {
  board = data;
  if (!same) view(asked); // one that is drawn once more stays as it is seen
  asked = new URLSearchParams();
  for (const b of board.branches) b.meeting = b.meeting && bytes(b.meeting);
  const words = board.segments.map(([text, at]) => at < 0 ? text
    : make("span", {class: "gate-word", role: "button", tabindex: at ? -1 : 0, "data-at": at, "aria-pressed": "false"}, text));
  const picture = make("div", {class: "gate-picture", role: "img", "aria-label": board.texts.picture}, make("img", {src: board.picture, alt: ""}),
    make("canvas", {width: 360, height: Math.min(1440, Math.max(1, Math.round(360 / board.ratio)))}), make("span", {class: "gate-cursor", hidden: ""}));
  Object.assign(picture.style, {aspectRatio: board.ratio, maxWidth: `calc(70vh * ${board.ratio})`}); // no taller than is seen at a glance
  if (board.places) Object.assign(picture, {tabIndex: 0, role: "application"});
  const options = [["", board.texts.both], ...board.branches.map((b) => [b.name, b.label])];
  const place = element.querySelector(".gate-board");
  place.replaceChildren(
    make("div", {class: "gate-row"},
      make("div", {class: "gate-left"}, picture),
      make("div", {class: "gate-right"},
        make("p", {class: "gate-passage", dir: "auto", role: "group", "aria-label": board.texts.passage}, ...words),
        make("p", {class: "gate-told", "aria-live": "polite"}),
        make("p", {class: "gate-legends"}, legend(board.texts.scale), board.places ? legend(board.texts.placeScale, "places") : ""))),
    make("div", {class: "gate-switches"}, radios(board.texts.gate, "gate", [["learned", board.texts.learned], ["shut", board.texts.off]]),
      board.branches.length > 1 ? radios(board.texts.branch, "branch", options) : ""),
    answers(), make("p", {class: "gate-note"}, board.texts.note));
  listen();
  draw();
};

// The server's answer arrives as a new value of this component, which redraws its template.
let seen = null;
const arrived = () => {
  const place = element.querySelector(".gate-board"), text = place?.dataset.board || "";
  const same = text === seen;
  if (same && (!text || place.firstChild)) return;
  seen = text;
  if (text) build(JSON.parse(text), same);
  else board = null;
};
new MutationObserver(arrived).observe(element, {childList: true, subtree: true, attributes: true, attributeFilter: ["data-board"]});
arrived();
