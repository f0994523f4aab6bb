"""Pairs beyond those that the held-out passages give: names never trained on, and names swapped where a language has
few passages."""

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..lexicon.naming import FOLDER, LANGUAGES, Lexicon, Mention, Name
from .pairs import NO_PER_YES, Pair, balanced_pairs, pair_of, shuffle_apart
from .passages import Passage, swap
from .pictures import Pictures

# Sentences for Dutch, of which there are no passages: {the} is "de hond", {many} "honden"; a capital letter begins a
# sentence.
DUTCH = (
    "In de stille nacht rook men {the} reeds van verre, en niemand sprak een woord.",
    "Er hing een zware geur in de kamer, die van {the} scheen te komen.",
    "{The} verspreidde een geur die mij aan mijn jeugd deed denken.",
    "Langs de weg zagen wij {many}, en de wind droeg hun reuk tot ons.",
    "Nooit zal ik de reuk vergeten van {the} op die warme zomerdag.",
    "Men zegt dat {the} in vroeger tijden zeer geacht werd in deze streek.",
    "De reiziger verhaalt dat hij daar {many} vond, gelijk hij nergens elders gezien had.",
    "Toen de deur openging, kwam de lucht van {the} ons tegemoet.",
    "Op het schilderij ziet men links {the} en rechts niets dan donkere schaduw.",
    "Wat een stank! riep hij uit, dat moet {the} zijn.",
    "De meester schilderde {many} met grote zorg en zachte kleuren.",
    "In het jaar 1672 werden er {many} naar Amsterdam gezonden.",
    "Zij hield veel van {the}, hoewel de geur haar soms deed walgen.",
    "Toen de avond viel, bleef alleen {the} nog zichtbaar.",
    "De dichter bezingt {the} en de zoete geuren van de lente.",
    "Vreemd genoeg rook {the} naar muskus en oude specerijen.",
    "Wij zagen er {many}, zo talrijk dat men ze niet tellen kon.",
    "Een scherpe, bijna bittere reuk steeg op, en toen zag ik {the}.",
    "Van {the} ging een warme damp uit, die zich in de koude lucht verloor.",
    "Haar ogen zochten {the}, maar vonden slechts leegte.",
    "Aan {many} was in die dagen groot gebrek, en de prijs steeg wekelijks.",
    "Hij had {the} nog nooit zo dichtbij gezien, en nog minder geroken.",
    "Het verslag van de reis vermeldt {many}, amber en wierook.",
    "Naast {the} lag een oude brief, vergeeld en half verbrand.",
    "Mijn grootvader sprak vaak over {the} uit zijn kinderjaren.",
    "Geen geur is mij liever dan die van {the} in de vroege morgen.",
    "De geleerde beschrijft in zijn boek {many} en hun eigenschappen.",
    "Tegen de regen was {the} slecht bestand; spoedig rook alles muf en vochtig.",
    "Op de markt verkocht men die ochtend {many} en allerlei kruiden.",
    "Zonder {the} zou het verhaal, zo meende zij, zijn bekoring verliezen.",
    "De lucht was bedompt, en {the} maakte het er niet beter op.",
    "Daar, achter de oude muur, stond of lag {the}, men kon het niet goed zien.",
    "Al wat ik mij van die dag herinner is {the} en de geur van nat gras.",
    "{Many} waren er overal, en de zoele wind bracht ons hun lucht.",
)


@dataclass(frozen=True)
class HeldOutCase:
    """A passage that names ``object`` by ``word``, which was never trained on, and by no other name."""

    passage: Passage
    word: str
    object: str

    @property
    def text(self) -> str:
        """The passage's text."""
        return self.passage.text

    @property
    def language(self) -> str:
        """The passage's language."""
        return self.passage.language


def held_out_cases(
    passages: list[Passage], objects: tuple[str, ...], seed: int = 0, per_name: int = 4, folder: Path = FOLDER
) -> list[HeldOutCase]:
    """Test passages in which one name gave way to a name never trained on, in its inflection where the tables know it;
    and Dutch sentences.

    Args:
        passages: held-out passages. per_name: cases for each held-out name (of each language); Dutch: for each name
            too.
    """
    rng = np.random.default_rng(seed)
    cases = []
    for language in LANGUAGES:
        lexicon = Lexicon(language, objects, folder, words="held out")
        own = [p for p in passages if p.language == language]
        for name in (n for names in lexicon.names.values() for n in names):
            cases += _cases_of_name(own, Lexicon.of(language, {name.object: [name]}), name.object, per_name, rng)
    return cases + _dutch_cases(objects, rng, per_name, folder)


def _cases_of_name(
    passages: list[Passage], one: Lexicon, name: str, count: int, rng: np.random.Generator
) -> list[HeldOutCase]:
    """``one`` knows a single name. The mentions that it fits best come first: same inflection and gender, then same
    inflection."""
    [only] = one.names[name]
    options: list[tuple[int, float, Passage, Mention]] = []
    for passage in passages:
        sure = [m for m in passage.mentions if m.sure]
        if not sure:
            continue
        best = min(sure, key=lambda m: (_misfit(m, only), rng.random()))
        others = {m.object for m in passage.mentions if m is not best}
        if name not in others:
            options.append((_misfit(best, only), float(rng.random()), passage, best))
    cases = []
    for _, _, passage, mention in sorted(options, key=lambda o: o[:2])[:count]:
        swapped = swap(passage, mention, name, one, rng)
        if swapped is not None:
            made = swapped.mentions[passage.mentions.index(mention)]
            cases.append(HeldOutCase(swapped, swapped.text[made.start : made.end], name))
    return cases


def _misfit(mention: Mention, name: Name) -> int:
    return 2 * (mention.tag not in name.forms) + (mention.gender != name.gender)


def _dutch_cases(objects: tuple[str, ...], rng: np.random.Generator, per_name: int, folder: Path) -> list[HeldOutCase]:
    lexicon = Lexicon("nl", objects, folder, words="held out")
    cases = []
    for name in (n for names in lexicon.names.values() for n in names):
        fitting = [s for s in DUTCH if "pl" in name.forms or "any}" not in s]
        cases += [_dutch_case(fitting[i], name) for i in rng.permutation(len(fitting))[:per_name]]
    return cases


def _dutch_case(sentence: str, name: Name) -> HeldOutCase:
    mark = next(m for m in ("{the}", "{The}", "{many}", "{Many}") if m in sentence)
    plural = mark.lower() == "{many}"
    word = name.forms["pl" if plural else "sg"]
    article = "" if plural else f"{name.gender} "
    put = article + word
    put = put[0].upper() + put[1:] if mark[1].isupper() else put
    start = sentence.index(mark) + len(article)
    text = sentence.replace(mark, put)
    mention = Mention(start, start + len(word), name.object, "pl" if plural else "sg", name.gender)
    return HeldOutCase(Passage(text, "nl", (mention,), "written"), text[start : start + len(word)], name.object)


def held_out_pairs(cases: list[HeldOutCase], pictures: Pictures, seed: int = 0) -> list[Pair]:
    """One YES pair a case, and three NO pairs whose pictures show nothing that the passage may name. ``passage`` is the
    case's number.

    The NO pictures are the YES pictures in other orders: every picture and every case stands in three NO pairs to one
    YES pair, but for the few that found no place. Cases of objects without a picture are left out.
    """
    rng = np.random.default_rng(seed)
    rows = {o: np.flatnonzero(pictures.labels == k) for k, o in enumerate(pictures.objects)}
    yes = [(i, int(rng.choice(rows[c.object]))) for i, c in enumerate(cases) if len(rows.get(c.object, ()))]
    passages = [c.passage for c in cases]
    pairs = [pair_of(pictures, i, p, 1) for i, p in yes]
    for _ in range(NO_PER_YES):
        pairs += [pair_of(pictures, i, p, 0) for i, p in shuffle_apart(yes, pictures, passages, rng)]
    return pairs


def swapped_pairs(
    pictures: Pictures,
    passages: list[Passage],
    lexicons: dict[str, Lexicon],
    pairs: list[Pair],
    least: int = 300,
    seed: int = 0,
) -> tuple[list[Passage], list[Pair]]:
    """For each language with fewer than ``least`` of ``pairs``: pairs with held-out passages of which one name was
    swapped, at least so many.

    To be reported apart: the sentence is a held-out one, the name in it is not the author's.

    Args:
        pairs: of ``passages``.

    Returns: the new passages, and pairs whose ``passage`` is a row among these. Empty where every language has enough,
        or no passages.
    """
    rng = np.random.default_rng(seed)
    counts = Counter(passages[p.passage].language for p in pairs)
    made: list[Passage] = []
    result: list[Pair] = []
    for language, lexicon in lexicons.items():
        own = [p for p in passages if p.language == language and p.named]
        if counts[language] >= least or not own:
            continue
        new = _swapped(own, lexicon, pictures.objects, -(-least // (1 + NO_PER_YES)) + 5, rng)
        found = balanced_pairs(pictures, new, seed, rounds=1)
        result += [replace(p, passage=p.passage + len(made)) for p in found]
        made += new
    return made, result


def _swapped(
    passages: list[Passage], lexicon: Lexicon, objects: tuple[str, ...], count: int, rng: np.random.Generator
) -> list[Passage]:
    """``count`` passages, the originals in turn, each with one sure name swapped for one of an object that it did not
    name."""
    new: list[Passage] = []
    targets: list[str] = []
    for turn in range(10 * count):
        if len(new) == count:
            break
        passage = passages[turn % len(passages)]
        targets = targets or [objects[i] for i in rng.permutation(len(objects))]
        target = next((t for t in targets if t not in passage.touched), None)
        if target is None:
            targets = []  # all that are left stand in it: begin a new round of objects
            continue
        targets.remove(target)
        sure = [m for m in passage.mentions if m.sure]
        swapped = swap(passage, sure[int(rng.integers(len(sure)))], target, lexicon, rng)
        if swapped is not None:
            # The other names stay, but this passage is there for the one that was put in.
            others = [m if m.object == target else replace(m, sure=False) for m in swapped.mentions]
            new.append(replace(swapped, mentions=tuple(others)))
    return new
