"""Names that training never sees, languages with few passages, and words that may be names."""

import json
from collections import Counter

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models
from transformers import BertConfig, BertModel

from training.lexicon.naming import LANGUAGES, Lexicon, Name, held_out_forms
from training.starter.doubtful import WordEncoder, doubtful_words
from training.starter.pairs import balanced_pairs
from training.starter.passages import Passage
from training.starter.pictures import Pictures
from training.starter.unseen import DUTCH, held_out_cases, held_out_pairs, swapped_pairs

OBJECTS = ("candle", "dog", "fish", "flower", "horse")
TEXTS = {
    "en": ("She blew out the candle, and the old dogs slept by the gate.", "A fish lay there, and the dog smelled it."),
    "de": ("Die Kerze war niedergebrannt, und der Hund lag müde an der Straße.",),
    "fr": ("Elle souffla la chandelle ; les chiens dormaient au bord de la rivière.",),
    "it": ("La candela era consumata e i cani dormivano vicino al fiume.",),
    "sl": ("Sveča je dogorela, psi so spali in v vodi je bila riba.",),
}


@pytest.fixture(scope="module")
def passages():
    found = {language: Lexicon(language, OBJECTS) for language in LANGUAGES}
    return [Passage(t, tag, tuple(found[tag].find(t)), "musti") for tag, texts in TEXTS.items() for t in texts]


@pytest.fixture(scope="module")
def pictures():
    labels = np.arange(100) % 5
    return Pictures(
        np.zeros((100, 1)), labels, np.array(["pacs-art", "caltech101"] * 50), np.arange(100).astype(str), OBJECTS
    )


def test_cases_name_their_object_by_a_held_out_word_alone(passages):
    cases = held_out_cases(passages, OBJECTS, per_name=2)
    assert {c.language for c in cases} == {*LANGUAGES, "nl"}
    for case in cases:
        held = held_out_forms(case.language)
        assert held[case.word.lower()] == case.object and case.word in case.text
        own = [m for m in case.passage.mentions if m.object == case.object]
        assert [case.text[m.start : m.end] for m in own] == [case.word]
        if case.language != "nl":
            assert not any(m.object == case.object for m in Lexicon(case.language, OBJECTS).find(case.text))
    words = {c.word.lower() for c in cases if c.language == "en"}
    assert words & {"nosegay", "nosegays"} and words & {"mare", "mares"} and words & {"herring", "herrings"}
    # English "dogs" is a plural: a plural stands in its place
    assert all(
        c.word in ("mastiff", "mastiffs") and ("dogs" in c.text) == (c.word == "mastiff")
        for c in cases
        if c.language == "en" and c.object == "dog" and "dog" in c.text
    )


def test_dutch_sentences_are_grammatical():
    assert len(DUTCH) >= 30 and len(set(DUTCH)) == len(DUTCH)
    cases = [c for c in held_out_cases([], OBJECTS, per_name=40) if c.language == "nl"]
    texts = {c.text for c in cases}
    assert (
        "Wat een stank! riep hij uit, dat moet de hond zijn." in texts
        and "Vreemd genoeg rook het paard naar muskus en oude specerijen." in texts
    )
    assert "Honden waren er overal, en de zoele wind bracht ons hun lucht." in texts and not any(
        "{" in t for t in texts
    )
    assert "De kaars verspreidde een geur die mij aan mijn jeugd deed denken." in texts
    everything = Lexicon("nl", ("candle", *OBJECTS[1:], "bee", "tree", "sea"), words="held out")
    assert not any(everything.find(s) for s in DUTCH)


def test_pairs_of_cases_are_balanced(passages, pictures):
    cases = held_out_cases(passages, OBJECTS, per_name=3)
    pairs = held_out_pairs(cases, pictures)
    yes, no = ([p for p in pairs if p.label == label] for label in (1, 0))
    assert len(yes) == len(cases) and 2.9 * len(yes) < len(no) <= 3 * len(yes)
    assert all(p.object == cases[p.passage].object for p in yes)
    assert all(p.object not in cases[p.passage].passage.touched for p in no)
    assert max(Counter(p.passage for p in no).values()) == 3 and {p.source for p in pairs} == {"pacs-art", "caltech101"}


def test_languages_with_few_pairs_get_swapped_ones(passages, pictures):
    lexicons = {language: Lexicon(language, OBJECTS) for language in LANGUAGES}
    base = balanced_pairs(pictures, passages, seed=0)
    assert all(p.source == pictures.sources[p.picture] for p in base)
    made, pairs = swapped_pairs(pictures, passages, lexicons, base, least=40)
    counts = Counter(made[p.passage].language for p in pairs)
    assert counts.keys() == set(LANGUAGES) and min(counts.values()) >= 40
    originals = {p.text for p in passages}
    assert not any(p.text in originals for p in made)
    for p in pairs:
        assert (p.object in made[p.passage].named) == bool(p.label) and (
            p.label or p.object not in made[p.passage].touched
        )
        found = {m.object for m in lexicons[made[p.passage].language].find(made[p.passage].text)}
        assert (p.object in found) == bool(p.label)
    assert {p.object for p in pairs if p.label} == set(OBJECTS) - {"dog"}  # which stands in every passage
    assert swapped_pairs(pictures, passages, lexicons, base, least=1) == ([], [])


def test_words_near_an_object_are_doubtful(tmp_path):
    """Words begin with what they mean: "d..." lies at the dogs, "f..." at the fish, all others by themselves."""
    names = {
        "en": {"dog": ["dalmat", "dog", "doggy", "dot"], "fish": ["fish", "fin", "fishy", "flounder", "finchen"]},
        "de": {"dog": ["dachs", "dogge", "dux"], "fish": ["fisch", "forelle", "fangfisch"]},
    }
    lexicons = {
        tag: Lexicon.of(tag, {o: [Name(o, {"sg": w}) for w in words] for o, words in table.items()})
        for tag, table in names.items()
    }
    calls = []

    def encode(words: list[str]) -> np.ndarray:
        calls.append(len(words))
        rng = np.random.default_rng(len(words))
        rows = rng.normal(0, 0.3, (len(words), 40)).astype(np.float32) + 5.0  # a common mean hides everything
        for row, word in zip(rows, words, strict=True):
            if word[0] in "df":
                row["df".index(word[0])] += 6
        return rows

    letters = "abcghijklmn"
    fill = " ".join(f"{a}{b}{c}" for a in letters for b in letters for c in letters)
    texts = [("en", f"{fill} Doberman dog fínchén"), ("de", f"{fill} Flosse er Felchen"), ("fr", "chien")]
    found = doubtful_words(texts, lexicons, encode, work=tmp_path, share=0.1)
    assert (
        found.words["en"]["doberman"] == "dog"
        and found.words["en"]["fínchén"] == "fish"
        and "dog" not in found.words["en"]
    )
    assert {w: found.words["de"][w] for w in ("flosse", "felchen")} == {"flosse": "fish", "felchen": "fish"}
    assert (
        found.found["en"] >= 0.8
        and found.looked == {"en": 1333, "de": 1333}
        and len(found.words["en"]) <= 0.1 * 1333 + 1
    )
    done = len(calls)
    # read back
    assert doubtful_words(texts, lexicons, encode, work=tmp_path, share=0.1) == found and len(calls) == done
    doubtful_words(texts, lexicons, encode, work=tmp_path, share=0.2)
    assert len(calls) > done


def test_the_words_of_an_encoder_are_the_mean_of_its_states(tmp_path):
    """A tiny encoder on disk: alone and among others a word has the same vector."""
    tokenizer = Tokenizer(
        models.Unigram([("<s>", 0.0), ("<pad>", 0.0), *((c, -1.0) for c in "abcdefghijklmnopqrstuvwxyz")], unk_id=0)
    )
    config = {
        "vocab_size": tokenizer.get_vocab_size(),
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
    }
    model = BertModel(BertConfig(**config), add_pooling_layer=False).eval()
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert", **config}))
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    encode = WordEncoder(tmp_path, "cpu")
    words = ["dog", "chrysanthemum", "a"]
    many = encode(words)
    with torch.inference_mode():
        states = model(**encode.tokenizer(["dog"], return_tensors="pt", return_token_type_ids=False)).last_hidden_state
    assert np.allclose(many[0], states[0].mean(0).numpy(), atol=1e-5)
    assert np.allclose(many, np.concatenate([encode([w]) for w in words]), atol=1e-5)
