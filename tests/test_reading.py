"""What is read of a passage: hostile, old and foreign texts."""

import json
import pickle
import random
import unicodedata
from itertools import chain

import pytest
import regex
from PIL import Image
from transformers import BertTokenizerFast

from musti_model import InputError, MustiProcessor, reading
from musti_model.reading import (
    MARKS,
    MAX_CHARACTERS,
    READ_CHARACTERS,
    WORD,
    Passage,
    clean_passage,
    count_words,
    handed,
    is_counted,
    spoken,
)
from page.calls import ranked
from page.tabs.many import short
from tests.conftest import TEXTS, tiny_config

SMALL_E = "\u0364"
ALPHABETS = {
    "marks": [*"aouqxmn -\n", SMALL_E, *"\u0303\u0304\u0308\u0301\u0327"],
    "joints": [*"abLé '’ʼ′`´‘-‐‑¬⸗=\xad\u200b\u200c\u200d\n∣﹣－"],
    "lines": [*"abÉſ-¬=\xad\n\r\f\v\x85\u2028\u2029 \t\xa01", "\r\n"],
    "letters": [*"ſꝑꝛꞇæœþðȝŋﬁﬆᵃªº\ue000Ｒｏῥόроורדوردगुकุ香ー한𝔯Ⅳ \u05b0\u064b"],
    "signs": [*'°™½²€&<>{}$\\"«»—…[]_|~^`#%@*+/ aB1😀\u200d\ufe0f\u0301'],
    "odd": [*"\0\ud800\udfff\ufeff\ufffd\uffff\u202e\u3164\u034f a\x1b\x1f\u0600", "rose", "&amp;"],
}


@pytest.fixture(scope="module", params=["starter", "cased", "uncased"])
def processor(request, tokenizer, tmp_path_factory):
    """With a tokenizer of our own kind, and with those of BERT."""
    if request.param != "starter":
        signs = "abcdefghijklmnopqrstuvwxyzäöüéAR.,;!?'-°01"
        vocabulary = tmp_path_factory.mktemp("bert") / "vocab.txt"
        vocabulary.write_text(
            "\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *signs, *(f"##{c}" for c in signs), "rose"]),
            encoding="utf-8",
        )
        lower = request.param == "uncased"
        tokenizer = BertTokenizerFast(str(vocabulary), do_lower_case=lower, strip_accents=lower)
    return MustiProcessor(tiny_config(), tokenizer)


def check(processor: MustiProcessor, given: str) -> None:
    """What holds for every passage that is answered."""
    batch = processor.passages([given])
    text, words, length = batch.texts[0], batch.words[0], int(batch.attention_mask[0].sum())
    text.encode()
    assert not regex.search(r"[\p{Cc}\p{Cs}\p{Cf}--\n]", text, regex.V1) and unicodedata.is_normalized("NFC", text)
    spans, own = [m.span() for m in WORD.finditer(text)], [(w.start, w.end) for w in words]
    assert all(text[w.start : w.end] == w.text and w.pieces for w in words)
    assert [s for s in spans if s in own] == own  # in order, none twice, none cut
    pieces = [p for w in words for p in w.pieces]
    assert pieces == sorted(set(pieces)) and set(pieces) <= set(range(1, length - 1))
    if length < processor.config.text_length:
        assert len(pieces) == length - 2  # all but [CLS] and [SEP]
    left = sum(is_counted(text[a:b]) for a, b in spans) - sum(is_counted(w.text) for w in words)
    assert bool(batch.notices[0]) == bool(left) and (
        len(words) == 0 or not left or f"the last {left} of its " in batch.notices[0][0]
    )


@pytest.mark.parametrize("kind", [*ALPHABETS, "all"])
def test_words_and_pieces_fit_whatever_is_pasted(processor, kind):
    signs = ALPHABETS.get(kind) or list(chain(*ALPHABETS.values()))
    chance = random.Random(kind)
    for length in (1, 2, 5, 12, 30, 30, 90, 400):
        given = "rose " + "".join(chance.choices(signs, k=length))
        check(processor, given)


@pytest.mark.parametrize(
    "marked",
    [
        f"ſcho{SMALL_E}ne",
        f"Lo{SMALL_E}we",
        "q\u0303",
        "x\u0304",
        "\u0303rose",
        "ro\u0327\u0323\u0301se",
        "gu\u0366t",
        "l’e\u0323te\u0301",
        "c\u02bcest",
        "r\ue000se",
        "गुलाब",
    ],
)
def test_a_mark_belongs_to_its_word(processor, marked):
    words = processor.passages([f"Die {marked}, a."]).words[0]
    assert [w.text for w in words] == ["Die", unicodedata.normalize("NFC", marked), ",", "a", "."]


def test_a_sign_does_not_hide_the_word_beside_it(processor):
    plain, signed = (processor.passages([t]) for t in ("rose", "rose™"))
    assert [w.text for w in signed.words[0]] == ["rose", "™"]
    assert signed.input_ids[0, 1 : len(plain.words[0][0].pieces) + 1].tolist() == plain.input_ids[0, 1:-1].tolist()


def test_a_footnote_is_no_part_of_its_word(processor):
    words = [w.text for w in processor.passages(["Rose¹² candle³, m²."]).words[0]]
    assert words == ["Rose", "¹", "²", "candle", "³", ",", "m", "²", "."]


@pytest.mark.parametrize(
    ("old", "plain"),
    [
        (f"Die ſcho{SMALL_E}ne Ro\u0364ſe", "Die schöne Röse"),
        ("ro\u0303ſe gu\u0366t roſm\u0303e", "rose gut rosme"),
        ("rōſe Rōse", "rose Rose"),
        ("ꝛoſe", "rose"),
        ("ꞇea", "tea"),
        ("Ｒｏｓｅ", "Rose"),
        ("𝔯𝔬𝔰𝔢", "rose"),
        ("roſᵉ", "rose"),
        ("l′e l´e lʼe", "l'e l'e l'e"),
        ("a⸗b a‑b", "a-b a-b"),
        ("\ue000roſe", "rose"),
        ("þe", "the"),
        ("roſe² ⅷ", "rose 2 viii"),
    ],
)
def test_old_letters_are_read_as_plain_ones(processor, old, plain):
    if "ö" in plain and "ö" not in processor._alphabet:
        plain = plain.replace("ö", "o")
    a, b = processor.passages([old, plain]).input_ids.tolist()
    assert a == b


def test_punctuation_is_handed_on_as_it_stands_and_other_signs_apart():
    """Else the tokenizer would make one word of "m²", or another of "roses" than without its comma."""
    for passage, given in (("roses, (old).", "roses, (old)."), ("m², a€b", "m 2, a € b")):
        spans = [word.span() for word in WORD.finditer(passage)]
        text, places = handed(passage, spans, {*"abdelmorsc"})
        assert text == given and len(places) == len(spans)
        assert all(text[slice(*place)].strip() for place in places)


def test_letters_that_the_tokenizer_knows_stay():
    assert spoken("Blüte", {*"Blüte"}) == "Blüte" and spoken("Blüte", {*"Blute"}) == "Blute"
    assert spoken("roza ½ nº роза", {*"roza ½nºроза"}) == "roza ½ nº роза"
    assert spoken("\u0301", set()) == "\u0301"  # never nothing
    assert len(spoken("\ufdfa" * 10, set())) == 10  # one sign that stands for a phrase


@pytest.mark.parametrize(
    ("text", "read"),
    [
        *((f"can{hyphen}\ndle", "candle") for hyphen in "-‐‑⸗⹀=¬﹣－\xad∣"),
        *(
            (f"can-{end}dle", "candle")
            for end in ("\r", "\r\n", "\f", "\n\f", "\x85", "\u2028", "\u2029", " \n", "\t\n\t", "\xa0\n ", "\u200b\n")
        ),
        (f"Ro{SMALL_E}-\nſe", f"Ro{SMALL_E}ſe"),
        ("ро-\nза", "роза"),
        ("Blu\u0308-\nte", "Blüte"),
        ("orga¬ niques plea∣sant", "organiques pleasant"),
        *((f"Rosen{hyphen}\n{capital}l", f"Rosen{hyphen}\n{capital}l") for hyphen in "-¬⸗=" for capital in "OÖÉŠÈÔРΔ"),
        ("Saint\xad\nMalo", "Saint-\nMalo"),
        ("Rosen-\nA\u0308pfel", "Rosen-\nÄpfel"),
        ("Rosen-\nund Veilchen", "Rosen-\nund Veilchen"),
        ("Rosen-\nunden", "Rosenunden"),
        *((f"Rosen-\n{word} Veilchen", f"Rosen-\n{word} Veilchen") for word in ("sowie", "bzw.", "u.")),
        ("Rosen-\nu", "Rosenu"),
        ("1650-\nund 20-\njährig", "1650-\nund 20-\njährig"),
        ("can-\n12\ndle", "can-\n12\ndle"),
        ("a--\nb", "a--\nb"),
        ("can-\n\ndle", "can-\n\ndle"),
        ("a\ud800b\0c", "a b c"),
        ("a\vb\rc\u2029d", "a\nb\nc\nd"),
        ("\ufeff\u202erose\u202c \u2066a\u2069", "rose a"),
        ("&amp; a", "&amp; a"),
        ("e\xad\u0301", "é"),
    ],
)
def test_lines_and_hyphens(text, read):
    cleaned = clean_passage(text)
    assert cleaned == read and clean_passage(str(cleaned)) == read


@pytest.mark.parametrize(
    "text", ["\u200b" * 30, "\xad\n\xad", "\ud800", "\x00\x1f", "\u0301", "…—«»", "½ 12 ²", "😀", "\ue000"]
)
def test_what_holds_no_word_is_refused(text):
    with pytest.raises(InputError, match="empty|no words"):
        clean_passage(text)


def filled(pattern: str) -> str:
    return ("a" + pattern * MAX_CHARACTERS)[:MAX_CHARACTERS]


HOSTILE = [
    "\u0f72\u0f71",
    "\u0301",
    "\u0301\u034f",
    "\u0301\xad",
    "\u0301\u200b",
    ",",
    ",a",
    "b",
    " ",
    "\u200b",
    "\ud800",
    "\0",
    "-\na",
    "ﬃ",
    "\u0344",
    "\ufdfa",
    "香",
    "b\u0301\u0323" * 9,
    "\ufdfa,",
    "😀",
]


@pytest.mark.parametrize("pattern", HOSTILE, ids=ascii)
def test_no_more_is_worked_on_than_is_read(processor, pattern, monkeypatch):
    """Normalising is quadratic in the marks on a letter, and the tokenizer walks all that it gets."""
    normalised, normalize = [], unicodedata.normalize
    monkeypatch.setattr(unicodedata, "normalize", lambda form, text: normalised.append(text) or normalize(form, text))
    handed, hand = [], processor.tokenizer._encode_plus
    monkeypatch.setattr(
        processor.tokenizer,
        "_encode_plus",
        lambda text, *given, **named: handed.append(text[0]) or hand(text, *given, **named),
    )
    reading._plain.cache_clear()
    batch = processor.passages([filled(pattern)])
    assert sum(map(len, normalised)) < 8 * READ_CHARACTERS
    assert not any(regex.search(rf"\p{{M}}{{{4 * MARKS}}}", text) for text in [*normalised, *handed, batch.texts[0]])
    assert len(WORD.findall(handed[0])) <= 4 * processor.config.text_length and len(handed[0]) < 8 * READ_CHARACTERS
    assert len(batch.texts[0]) < 4 * READ_CHARACTERS
    assert all(len(notice) < 250 for notice in batch.notices[0])


def test_words_beyond_what_is_read_are_counted(processor):
    words = 100_000
    batch = processor.passages(["rose, " * (words - 1) + "l’été."])
    left = words - sum(is_counted(w.text) for w in batch.words[0])
    assert f"the last {left} of its {words} words" in batch.notices[0][0] and len(batch.texts[0]) <= READ_CHARACTERS
    assert batch.texts[0].endswith(("rose,", "rose"))  # not within a word


def test_what_cannot_be_seen_takes_no_room(processor):
    for nothing in ("\u200b", " ", "\0", "\ufeff", "\n\u200d", "\ud800"):
        assert processor.passages([nothing * 30_000 + "rose"]).texts == ["rose"]
    assert processor.passages(["a" + "\u200b" * 100_000 + " rose"]).texts == ["a rose"]


def test_words_are_counted_as_they_are_found():
    signs = [
        c
        for kind in ("joints", "lines", "letters", "odd")
        for c in ALPHABETS[kind]
        if regex.fullmatch(r"[^\p{M}\p{C}\p{DI}]", c)
    ]
    chance = random.Random(1)
    for text in [
        *TEXTS,
        "",
        "a",
        "a-",
        "-a",
        "l’été c'est-à-dire a--b",
        *("".join(chance.choices(signs, k=300)) for _ in range(20)),
    ]:
        assert count_words(text) == sum(is_counted(w) for w in WORD.findall(text))


def test_a_clean_passage_is_not_cleaned_again(pipe, tmp_path, monkeypatch):
    """The page cleans each passage to name the one that cannot be read; the pipeline takes what it is given."""
    begun, beginning = [], reading._beginning
    monkeypatch.setattr(reading, "_beginning", lambda text: begun.append(text) or beginning(text))
    Image.new("RGB", (40, 40), "red").save(tmp_path / "a.png")
    answers = ranked(pipe, [str(tmp_path / "a.png")], ["The roses", "garden " * 90_000])
    assert len(begun) == 2
    assert any(f"of its {90_000} words" in notice for _, answer in answers for notice in answer.notices)


def test_a_passage_travels_with_its_count():
    passage = clean_passage("rose " * 10_000)
    copied = pickle.loads(pickle.dumps(passage))
    assert (
        (copied, copied.words_after) == (passage, passage.words_after)
        and copied.words_after > 0
        and isinstance(copied, Passage)
    )


def test_a_lone_surrogate_leaves_no_trace(pipe, tmp_path):
    explanation = pipe.explain(Image.new("RGB", (40, 40), "red"), "The \ud800 roses\udfff")
    manifest = json.loads((explanation.save(tmp_path / "e") / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["passage"] == "The   roses" and manifest["words"] == ["The", "roses"]
    short("The \ud800 roses").encode()
