"""Historical passages with the objects they name; split by passage, multiplied by swapping names and by OCR wear."""

import json
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..lexicon.naming import LANGUAGES, WORD, Lexicon, Mention, fold
from ..lexicon.naming import word_spans as unelided
from .pictures import split_of

WINDOW = 90  # words of a passage cut from a long document, about MUSTI's mean
JOINED = 4  # so many neighbours of one document are joined again for training, so that it has long passages too


@dataclass(frozen=True)
class Passage:
    """text; language; mentions: names found in it; origin: "musti" or "corpora"."""

    text: str
    language: str
    mentions: tuple[Mention, ...]
    origin: str

    @property
    def named(self) -> set[str]:
        """Objects surely named."""
        return {m.object for m in self.mentions if m.sure}

    @property
    def touched(self) -> set[str]:
        """Objects surely or possibly named: none of these makes a NO."""
        return {m.object for m in self.mentions}


@dataclass(frozen=True)
class _Piece:
    """text; language; origin; document, number: where in which document it stands."""

    text: str
    language: str
    origin: str
    document: int = -1
    number: int = 0


def _documents(data: Path) -> list[_Piece]:
    """All texts, long documents cut into windows that share no word."""
    rows: dict[str, _Piece] = {}
    musti = data / "musti" / "musti-train.json"
    if musti.exists():
        for pair in json.loads(musti.read_text(encoding="utf-8"))["pairs"]:
            rows[pair["text"]] = _Piece(pair["text"], pair["language"], "musti")
    document = 0
    for language in LANGUAGES:
        corpus = data / "corpora" / f"odeuropa-{language}.txt"
        for line in corpus.read_text(encoding="utf-8").splitlines() if corpus.exists() else []:
            words = line.split()
            document += 1
            for number, start in enumerate(range(0, len(words), WINDOW)):
                text = " ".join(words[start : start + WINDOW])
                rows[text] = _Piece(text, language, "corpora", document, number)
    return list(rows.values())


def load_passages(
    data: Path,
    lexicons: dict[str, Lexicon],
    doubtful: Mapping[str, Mapping[str, str]] | None = None,
    held: dict[str, Lexicon] | None = None,
) -> dict[str, list[Passage]]:
    """All passages by split. MUSTI texts are kept whole; a text that begins alike goes to the same split, and a passage
    of dev or test half of whose words in a row are also in train is left out.

    Args:
        lexicons: by language; texts of other languages are left out.
        doubtful: {language: {word, folded: object}}, words that may name an object (``doubtful_words``): found, but
            never surely.
        held: names that training must not see; default: of ``held_out.json``. A passage with one of them is not in
            train, and elsewhere they are found, but never surely.

    In train, neighbours of one document are joined to passages of up to ``JOINED`` times ``WINDOW`` words.
    """
    if held is None:
        held = {tag: Lexicon(tag, tuple(lexicon.names), words="held out") for tag, lexicon in lexicons.items()}
    splits: dict[str, list[tuple[_Piece, Passage]]] = {"train": [], "dev": [], "test": []}
    for piece in _documents(data):
        if piece.language not in lexicons or len(WORD.findall(piece.text)) < 8:
            continue
        split = split_of("".join(piece.text.lower().split())[:60], dev=0.12, test=0.12)
        unseen = held[piece.language].find(piece.text) if piece.language in held else []
        if unseen and split == "train":
            continue
        mentions = lexicons[piece.language].find(piece.text)
        others = [Mention(m.start, m.end, m.object, m.tag, m.gender, False) for m in unseen]
        others += _doubtful(piece.text, (doubtful or {}).get(piece.language, {}))
        splits[split].append((piece, Passage(piece.text, piece.language, _apart(mentions, others), piece.origin)))
    known = {s for _, p in splits["train"] for s in _shingles(p.text)}
    held_back = {split: [p for _, p in splits[split] if not _mostly(p.text, known)] for split in ("dev", "test")}
    return {"train": _joined(splits["train"]), **held_back}


def _doubtful(text: str, words: Mapping[str, str]) -> list[Mention]:
    if not words:
        return []
    folded = ((start, end, fold(text[start:end])) for start, end in unelided(text))
    return [Mention(start, end, words[word], "", "", False) for start, end, word in folded if word in words]


def _apart(mentions: list[Mention], others: list[Mention]) -> tuple[Mention, ...]:
    """Both in order; of the others only those that overlap none before them."""
    taken = list(mentions)
    for other in others:
        if not any(m.start < other.end and m.end > other.start for m in taken):
            taken.append(other)
    return tuple(sorted(taken, key=lambda m: m.start))


def _joined(pieces: list[tuple[_Piece, Passage]]) -> list[Passage]:
    """Runs of neighbours put together, up to ``JOINED`` of them."""
    result: list[Passage] = []
    last, count = None, 0
    for piece, passage in pieces:
        follows = last is not None and piece.document == last.document >= 0 and piece.number == last.number + 1
        if follows and count < JOINED:
            before = result[-1]
            moved = _moved(passage.mentions, len(before.text) + 1)
            result[-1] = Passage(
                f"{before.text} {passage.text}", before.language, (*before.mentions, *moved), before.origin
            )
            count += 1
        else:
            result.append(passage)
            count = 1
        last = piece
    return result


def _moved(mentions: tuple[Mention, ...] | list[Mention], by: int) -> tuple[Mention, ...]:
    return tuple(Mention(m.start + by, m.end + by, m.object, m.tag, m.gender, m.sure) for m in mentions)


def _shingles(text: str, size: int = 8) -> set[str]:
    """All runs of ``size`` words, folded."""
    words = [w.group().lower() for w in WORD.finditer(text)]
    return {" ".join(words[i : i + size]) for i in range(len(words) - size + 1)}


def _mostly(text: str, known: set[str]) -> bool:
    """Whether half of the passage's runs of words are known: the same text again, begun a few words earlier or
    later."""
    own = _shingles(text)
    return bool(own) and len(own & known) >= len(own) / 2


def word_spans(text: str) -> tuple[list[int], list[int]]:
    """Where the words of a text begin and end."""
    spans = [m.span() for m in WORD.finditer(text)]
    return [s for s, _ in spans], [e for _, e in spans]


def window(
    passage: Passage,
    rng: np.random.Generator,
    keep: Mention | None,
    low: int = 8,
    high: int = 160,
    spans: tuple[list[int], list[int]] | None = None,
) -> Passage:
    """A stretch of random length around ``keep`` (or anywhere), in whole words. spans: the passage's ``word_spans``,
    where they are at hand."""
    return _cut(passage, _stretch(spans or word_spans(passage.text), rng, keep, low, high))


def _stretch(
    spans: tuple[list[int], list[int]], rng: np.random.Generator, keep: Mention | None, low: int, high: int
) -> tuple[int, int]:
    """Where the stretch begins and ends."""
    starts, ends = spans
    size = min(len(starts), int(rng.integers(low, high)))
    low_start, high_start = 0, len(starts) - size
    if keep:
        first_must = bisect_left(ends, keep.start + 1)  # the first word that reaches into it
        low_start, high_start = max(0, first_must - size + 1), min(first_must, high_start)
    start = int(rng.integers(min(low_start, high_start), high_start + 1))
    a, b = starts[start], ends[start + size - 1]
    if keep:
        a, b = min(a, keep.start), max(b, keep.end)
    return a, b


def _cut(passage: Passage, stretch: tuple[int, int]) -> Passage:
    a, b = stretch
    inside = [m for m in passage.mentions if m.start >= a and m.end <= b]
    return Passage(passage.text[a:b], passage.language, _moved(inside, -a), passage.origin)


def around(passage: Passage, mention: Mention, words: int) -> Passage:
    """So many words of it, the mention in their middle where the passage is long enough."""
    starts, ends = word_spans(passage.text)
    middle = bisect_left(ends, mention.start + 1)  # the first word that reaches into it
    first = max(0, min(middle - words // 2, len(starts) - words))
    last = min(len(starts), first + words) - 1
    return _cut(passage, (min(starts[first], mention.start), max(ends[last], mention.end)))


def swap(passage: Passage, mention: Mention, target: str, lexicon: Lexicon, rng: np.random.Generator) -> Passage | None:
    """The passage with one name replaced by a name of ``target``; None where the language has none."""
    form = lexicon.replacement(mention, target, rng)
    if form is None:
        return None
    old = passage.text[mention.start : mention.end]
    if old[:1].isupper() and rng.random() < 0.7:
        form = form[:1].upper() + form[1:]
    return _rename(passage, mention, target, form)


def _rename(passage: Passage, mention: Mention, target: str, form: str) -> Passage:
    """``form``, a name of ``target``, put in the place of one mention; all offsets follow."""
    shift = len(form) - (mention.end - mention.start)
    text = passage.text[: mention.start] + form + passage.text[mention.end :]
    moved = []
    for m in passage.mentions:
        if m is mention or m == mention:
            moved.append(Mention(m.start, m.start + len(form), target, m.tag, m.gender, True))
        elif m.start > mention.start:
            moved.append(Mention(m.start + shift, m.end + shift, m.object, m.tag, m.gender, m.sure))
        else:
            moved.append(m)
    return Passage(text, passage.language, tuple(moved), passage.origin)


_CONFUSED = {
    "s": "fſ",
    "f": "s",
    "e": "co",
    "c": "e",
    "o": "c0",
    "i": "l1",
    "l": "i1",
    "u": "n",
    "n": "u",
    "h": "b",
    "b": "h",
    "t": "l",
    "r": "i",
    "m": "n",
    "v": "u",
    "a": "o",
    "g": "q",
    "č": "c",
    "é": "e",
    "è": "e",
    "ä": "a",
    "ö": "o",
    "ü": "u",
}


def wear(passage: Passage, rng: np.random.Generator, rate: float) -> Passage:
    """OCR wear: confused, lost, doubled characters at ``rate`` a character; offsets follow, names keep half their
    length."""
    text = passage.text
    hits = [i for i in np.flatnonzero(rng.random(len(text)) < rate).tolist() if text[i].isalpha()]
    if not hits:
        return passage
    parts, shifts, last, shift = [], [0], 0, 0
    for i, (kind, pick) in zip(hits, rng.random((len(hits), 2)).tolist()):
        c = text[i]
        options = _CONFUSED.get(c.lower(), "")
        if kind < 0.65 and options:
            c = options[int(pick * len(options))]
        elif kind < 0.8:
            c = ""
        elif kind < 0.9:
            c = c + c
        parts += [text[last:i], c]
        last, shift = i + 1, shift + len(c) - 1
        shifts.append(shift)
    parts.append(text[last:])

    def at(position: int) -> int:
        return position + shifts[bisect_left(hits, position)]

    mentions = [Mention(at(m.start), at(m.end), m.object, m.tag, m.gender, m.sure) for m in passage.mentions]
    return Passage("".join(parts), passage.language, tuple(m for m in mentions if m.end > m.start), passage.origin)


def sprinkle(passage: Passage, targets: list[str], lexicon: Lexicon, rng: np.random.Generator) -> Passage:
    """A passage in which random words that name nothing give way to names of ``targets``: no sentence, but many names
    in few words."""
    taken = [(m.start, m.end) for m in passage.mentions]
    free = [w for w in WORD.finditer(passage.text) if not any(w.start() < e and w.end() > s for s, e in taken)]
    chosen = sorted(rng.choice(len(free), size=min(len(targets), len(free)), replace=False)) if free else []
    spots = [Mention(free[i].start(), free[i].end(), "", "", "") for i in chosen]
    for spot, target in reversed(list(zip(spots, targets))):
        form = lexicon.any_form(target, rng)
        if form is not None:
            at = Passage(passage.text, passage.language, (*passage.mentions, spot), passage.origin)
            passage = _rename(at, spot, target, form)
    return passage


class PassageMill:
    """Endless training passages: a passage, a name in it swapped or kept, a window around it, wear."""

    def __init__(self, passages: list[Passage], lexicons: dict[str, Lexicon], objects: tuple[str, ...]) -> None:
        self.lexicons, self.objects = lexicons, objects
        self.naming = [p for p in passages if p.named]
        languages = [p.language for p in self.naming]
        counts = {language: languages.count(language) for language in set(languages)}
        pieces = np.array(
            [max(1, round(len(p.text.split()) / WINDOW)) if p.origin == "corpora" else 2 for p in self.naming]
        )
        weights = pieces / np.sqrt([counts[p.language] for p in self.naming])
        self.weights = np.cumsum(weights / weights.sum())
        self.by_language = {language: [p for p in passages if p.language == language] for language in counts}
        self._spans: dict[int, tuple[list[int], list[int]]] = {}

    def _stretch(
        self, passage: Passage, rng: np.random.Generator, keep: Mention | None, low: int, high: int
    ) -> tuple[int, int]:
        """``_stretch``, with the places of the words kept for the next time."""
        if id(passage) not in self._spans:  # the mill holds its passages: no other gets the same id
            self._spans[id(passage)] = word_spans(passage.text)
        return _stretch(self._spans[id(passage)], rng, keep, low, high)

    def drill(self, rng: np.random.Generator, low: int, high: int) -> tuple[Passage, str]:
        """A few words in one language with one to three names of random objects among them, and one of these
        objects."""
        language = list(self.by_language)[int(rng.integers(len(self.by_language)))]
        while True:
            passages = self.by_language[language]
            passage = passages[int(rng.integers(len(passages)))]
            passage = _cut(passage, self._stretch(passage, rng, None, low, high))
            targets = [self.objects[int(k)] for k in rng.integers(len(self.objects), size=int(rng.integers(1, 4)))]
            passage = sprinkle(passage, targets, self.lexicons[language], rng)
            if rng.random() < 0.3:
                passage = wear(passage, rng, float(rng.uniform(0.003, 0.04)))
            named = [t for t in targets if t in passage.named]
            if named:
                return passage, named[0]

    def draw(self, rng: np.random.Generator, low: int = 8, high: int = 120) -> tuple[Passage, str]:
        """A training passage of ``low`` to ``high`` words and the object it was made to name."""
        while True:
            passage = self.naming[min(int(np.searchsorted(self.weights, rng.random())), len(self.naming) - 1)]
            sure = [m for m in passage.mentions if m.sure]
            mention = sure[int(rng.integers(len(sure)))]
            stretch = self._stretch(passage, rng, mention, low, high)
            passage, target = _cut(passage, stretch), mention.object
            if rng.random() < 0.75:
                target = self.objects[int(rng.integers(len(self.objects)))]
                kept = next(m for m in passage.mentions if m.start == mention.start - stretch[0])
                swapped = swap(passage, kept, target, self.lexicons[passage.language], rng)
                if swapped is None:
                    continue
                passage = swapped
            if rng.random() < 0.5:
                passage = wear(passage, rng, float(rng.uniform(0.003, 0.04)))
            if target in passage.named:
                return passage, target
