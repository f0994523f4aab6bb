"""The embedded weights: they are what the card says, and they answer sensibly on pairs built here."""

from pathlib import Path

import numpy as np
import pytest
import torch

from musti_model import Alteration, MustiPipeline
from musti_model.weights import STARTER
from page.examples import EXAMPLES as EXAMPLES_OF_PAGE
from training.report.metrics import f1_macro

EXAMPLES = Path(__file__).parents[1] / "assets" / "examples"
# Passages written for this test, in five languages; each names one object.
PASSAGES = {
    "flower": [
        "The flowers in the vase had begun to fade, yet their scent still hung in the room.",
        "In der Stube standen frische Blumen, und ihr Duft erfüllte das ganze Zimmer.",
        "Les fleurs du jardin répandaient au soir une odeur très douce.",
        "I fiori del giardino mandavano la sera un odore soave.",
        "Na oknu so stale cvetlice in njih vonj je bil sladek.",
    ],
    "candle": [
        "She blew out the candle, and the smell of the wick lingered in the dark.",
        "Die Kerze war niedergebrannt und roch nach Wachs.",
        "La bougie fumait encore et laissait une odeur de cire.",
        "La candela era consumata e mandava odore di cera.",
        "Sveča je dogorela in po sobi je dišalo po vosku.",
    ],
    "lemon": [
        "A lemon was cut open and its sharp scent rose from the plate.",
        "Die Zitronen lagen in der Schale und ihr Geruch war frisch.",
        "Les citrons coupés répandaient leur odeur piquante.",
        "Il limone tagliato mandava un odore acuto.",
        "Limone so narezali in njihov vonj je bil oster.",
    ],
    "house": [
        "The old house smelled of dust and of apples that were kept in the loft.",
        "Das Haus roch nach Kalk und nach feuchtem Holz.",
        "La maison sentait la cire et la fumée.",
        "La casa era piena di un odore di muffa.",
        "Hiša je dišala po dimu in po vlagi.",
    ],
    "fish": [
        "The stench of the fish could be smelled from the harbour to the market.",
        "Der Fisch lag drei Tage in der Sonne und stank.",
        "Le poisson pourri infectait toute la rue du port.",
        "Il pesce marcio ammorbava tutta la contrada.",
        "Riba je ležala na soncu in strašno smrdela.",
    ],
    "horse": [
        "The horse had been ridden hard and smelled of sweat and leather.",
        "Das Pferd dampfte nach dem Ritt und roch nach Schweiß.",
        "Le cheval sentait la sueur et le cuir mouillé.",
        "Il cavallo sudato mandava un odore acre.",
        "Konj je bil spoten in je dišal po usnju.",
    ],
}
PICTURES = {"candle": "candle.jpg", "house": "china.jpg", "flower": "allium-oreophilum.jpg"}


@pytest.fixture(scope="module")
def pipe() -> MustiPipeline:
    return MustiPipeline.from_pretrained(STARTER)


def test_weights_are_small_and_described(pipe):
    assert (STARTER / "model.safetensors").stat().st_size < 50_000_000
    assert pipe.card["dev"]["f1_macro"] >= 0.9 and pipe.card["test"]["f1_macro"] >= 0.9
    assert min(s["f1_macro"] for s in pipe.card["test"]["languages"].values()) >= 0.86
    lost = pipe.card["test"]["lost"]
    assert lost["shut"] >= 0.1 and lost["open"] >= 0.05 and pipe.card["test"]["nothing_yes"] <= 0.05
    assert set(pipe.card["test"]["languages"]) == {"de", "en", "fr", "it", "sl"}
    # the scores are those of these very weights
    assert pipe.card["weights"] == pipe.revision and pipe.card["test"]["ece"] <= 0.04
    card = (STARTER / "README.md").read_text()
    assert f"{pipe.card['test']['f1_macro']:.3f}" in card and "not the published MUSTI model" in card


def test_pairs_in_five_languages(pipe):
    rows = [
        (EXAMPLES / file, text, name == shown)
        for shown, file in PICTURES.items()
        for name, texts in PASSAGES.items()
        for text in texts
    ]
    answers = pipe.predict([r[0] for r in rows], [r[1] for r in rows])
    labels = np.array([r[2] for r in rows], dtype=int)
    assert f1_macro(labels, np.array([a.probability for a in answers]), pipe.config.threshold) >= 0.85


def test_names_are_read_in_five_languages(pipe):
    found = [
        name in {o for o, _ in p.objects_in_passage}
        for name, texts in PASSAGES.items()
        for p in pipe.predict([EXAMPLES / "china.jpg"] * 5, texts)
    ]
    assert np.mean(found) >= 0.8


def test_the_gate_opens_at_the_word_for_what_the_picture_shows(pipe):
    """One passage, two pictures: the word that opens most is the one that names what is seen; with the gate shut both
    answers are lost."""
    passage = "The old house stood among flowers whose scent filled the lane."
    for picture, word in (("china.jpg", "house"), ("allium-oreophilum.jpg", "flowers")):
        e = pipe.explain(EXAMPLES / picture, passage, evidence=False)
        assert e.prediction.label == "YES" and e.shut.probability < pipe.config.threshold
        for gate in e.gates.values():
            assert e.words[int(np.argmax(gate.words))] == word


@pytest.mark.parametrize(
    ("passage", "read"),
    [
        ("Le vieux cheval sentait la sueur.", [["horse", "cheval"]]),
        ("The wet dog lay by the fire and stank.", [["dog", "dog"], ["fire", "fire"]]),
        ("A dog, a dog and a horse.", [["dog", "dog"], ["dog", "dog"], ["horse", "horse"]]),
    ],
)
def test_an_adjective_does_not_name_what_its_noun_names(pipe, flower, passage, read):
    assert pipe(flower, passage).to_json()["objects_in_passage"] == read


def test_bfloat16_agrees_with_float32():
    exact = MustiPipeline.from_pretrained(STARTER, device="cpu", precision="float32")
    rough = MustiPipeline.from_pretrained(STARTER, device="cpu")
    rough.autocast = torch.bfloat16
    for text in PASSAGES["flower"][:2]:
        a, b = exact(EXAMPLES / "flower.jpg", text), rough(EXAMPLES / "flower.jpg", text)
        assert abs(a.probability - b.probability) < 0.05


def test_what_the_tour_says_of_the_palace_is_so(pipe):
    """Without the one word, and without the palace, the answer turns."""
    example = EXAMPLES_OF_PAGE[1]
    word = pipe.explain(example.path, example.passage, evidence=False).words.index("Haus")
    palace = [(row, column) for row in range(1, 7) for column in range(8)]
    for alteration in (Alteration(struck=[word]), Alteration(blanked=palace), Alteration(gate="shut")):
        assert pipe.what_if(example.path, example.passage, alteration) < pipe.config.threshold
