"""The language of a passage is told only where it is clear; weights tell only of those that their card does not
know."""

import json
import shutil

import pytest

from musti_model import MustiPipeline
from musti_model.languages import NAMES, SMALL_WORDS, is_latin, language_of
from page.examples import EXAMPLES
from page.language import in_language, say
from tests.conftest import TEXTS

OWN = {  # a clean passage, one in old spelling, one as text recognition leaves it
    "en": [
        (
            "She opened the window, and the smell of the wet garden came in with the morning, so that for a while no "
            "one in the room would speak."
        ),
        (
            "And whan the kyng had herd theſe wordes he hath not anſwered, but went out vnto the garden, where the "
            "roſes did ſmell ſo ſweet that he was glad of it."
        ),
        (
            "Tlie fmell of thefe herbes is fo ftrong, that fome inen haue faid they could not abide in the lioufe "
            "where it was kept, and muft goe out of dores."
        ),
    ],
    "de": [
        (
            "Als sie das Fenster öffnete, kam der Geruch des nassen Gartens mit dem Morgen herein, so daß eine Weile "
            "lang niemand im Zimmer sprechen wollte."
        ),
        (
            "Vnd da ſie in den Garten kamen, do was der geſchmack der Blumen alſo ſüß, daß ſie nit von dannen gehen "
            "wolten, vnd der König ſprach zu jhr mit züchten."
        ),
        (
            "Die Blumen in dem Garten find fo fchon, und ihr Geruch ift fo ftark, daß man fich nicht lange dabey "
            "aufhalten kan, ohne von ihm betaubt zu werdcn."
        ),
    ],
    "fr": [
        (
            "Quand elle ouvrit la fenêtre, l’odeur du jardin mouillé entra avec le matin, et pendant un moment "
            "personne dans la chambre ne voulut plus parler."
        ),
        (
            "Le roy eſtoit en ſon iardin, & la ſenteur des rozes y eſtoit ſi grande que ceulx qui auoient mal de teſte "
            "n’y pouoient demourer avec luy."
        ),
        (
            "L'odeur de ces fleurs eft fi forte que plufieurs perfonnes ne peuvent demeurer dans la cliambre ou elles "
            "font, fans en avoir mal a la tete."
        ),
    ],
    "it": [
        (
            "Quando aprì la finestra, l’odore del giardino bagnato entrò con la mattina, e per un poco nessuno di "
            "quelli che erano nella stanza volle parlare."
        ),
        (
            "Et eſſendo il Re nel giardino, ſentì vn odore così ſoaue che li parue d’hauere innanzi tutte le roſe del "
            "mondo, onde diſſe alli ſuoi che non ſi partiſſero."
        ),
        (
            "Lodore di quefte rofe è tanto acuto, che non fi può ftare nella ftanza dove fono, e le donne ne hanno il "
            "capo grave, come fe haueffero beuto del vino."
        ),
    ],
    "sl": [
        (
            "Ko je odprla okno, je prišel z jutrom v sobo vonj po mokrem vrtu, tako da nekaj časa nihče od teh, ki so "
            "bili tam, ni hotel govoriti."
        ),
        (
            "Inu kadar je on v' tiga kralja hiſho priſhal, je bila vſa polna tiga dobriga duha, inu ony ſo djali, de "
            "nej nihzhe od tod ne gre, kir je takú lepú."
        ),
        (
            "Ko je ftopila v fobo, je difalo po vofku in po ftarem lefu, ki fo ga bili pred leti prinefli z gore, in "
            "nihče ni vedel, zakaj fo to ftorili."
        ),
    ],
}
FOREIGN = [
    (
        "nl",
        (
            "De geur van de rozen was in het gehele huis, en niemand wist van wie zij waren of door wie zij daar waren "
            "gebracht, want de deur was niet open geweest."
        ),
    ),
    (
        "nl",
        (
            "Ende als sy in den hof quamen, soo was daer eenen soo soeten reuck, dat sy niet en wisten van waer hy "
            "quam, ende sy seyden dat het een wonder was."
        ),
    ),
    (
        "es",
        (
            "El olor de las rosas llenaba toda la casa, y no había en ella quien no supiese que la señora había vuelto "
            "del jardín, porque siempre dejaba una en la mesa."
        ),
    ),
    (
        "pt",
        (
            "O cheiro das rosas enchia a casa toda, e não havia nela quem não soubesse que a senhora tinha voltado do "
            "jardim, porque deixava sempre uma em cima da mesa."
        ),
    ),
    (
        "la",
        (
            "Cum autem in hortum venisset, tantus odor rosarum erat, ut omnes qui ibi sedebant de eo inter se "
            "loquerentur, nec tamen quisquam sciret unde esset."
        ),
    ),
    (
        "hr",
        (
            "Miris ruža ispunio je cijelu kuću, i nije bilo nikoga koji ne bi znao da se gospođa vratila iz vrta, jer "
            "je uvijek, kad bi došla, ruža bila na stolu kao znak."
        ),
    ),
    (
        "cs",
        (
            "Vůně růží naplnila celý dům a nebylo nikoho, kdo by nevěděl, že se paní vrátila ze zahrady, protože když "
            "přišla, byla na stole růže, jako by přišlo jaro."
        ),
    ),
    (
        "pl",
        (
            "Zapach róż napełnił cały dom i nie było nikogo, kto by nie wiedział, że pani wróciła z ogrodu, bo zawsze, "
            "gdy przyszła, była na stole róża, jak gdyby to był maj."
        ),
    ),
    (
        "da",
        (
            "Duften af roserne fyldte hele huset, og der var ikke nogen som ikke vidste at fruen var kommet hjem, for "
            "hver gang hun kom, lå der en rose på bordet."
        ),
    ),
    (
        "sv",
        (
            "Doften av rosorna fyllde hela huset, och det fanns ingen som inte visste att frun hade kommit hem, ty var "
            "gång hon kom låg det en ros på bordet."
        ),
    ),
]
UNCLEAR = [
    "Smell",
    "Un parfum de rose",
    "Roses are red.",
    "La rosa",
    "El perro",
    "De geur van rozen.",
    "In vino veritas.",
    "Et in Arcadia ego",
    (
        "Rosa canina, Rosa gallica, Lilium candidum, Viola odorata, Narcissus poeticus, Crocus sativus, Iris "
        "florentina, Nardus stricta."
    ),
    "Mr. Johannes van der Meer, Don Pedro de la Vega, Signor di Castelnuovo, Herr von Hohenstein, Madame de la Tour.",
    "Tbc fmcll oſ tlic rofcs wns fwcct. Lcs rofcs dc la nuit. 17%5. ,,.. vv iii |{ ot tnd fo oii",
    (
        "Szép volt a kert, és a rózsák illata betöltötte az egész házat, mintha tavasz lett volna, pedig már késő ősz "
        "volt."
    ),
]


@pytest.mark.parametrize(("tag", "text"), [(tag, text) for tag, texts in OWN.items() for text in texts])
def test_old_spelling_and_worn_letters_raise_no_alarm(tag, text):
    assert language_of(text) in (tag, None)
    assert language_of(OWN[tag][0]) == tag and is_latin(text)


def test_the_passages_at_hand_raise_no_alarm():
    for text in TEXTS:
        assert language_of(text) in (*OWN, None) and is_latin(text), text
    for example in EXAMPLES:
        assert language_of(example.passage) in (example.language, None) and is_latin(example.passage), example


@pytest.mark.parametrize(("tag", "text"), FOREIGN)
def test_other_languages_are_told(tag, text):
    assert language_of(text) == tag and tag not in OWN


@pytest.mark.parametrize("text", ["", "?! 1790", *UNCLEAR])
def test_what_is_short_or_mixed_gets_no_answer(text):
    assert language_of(text) is None and is_latin(text)


def test_a_quotation_does_not_make_the_passage_foreign():
    for _, quoted in FOREIGN:
        for own in OWN.values():
            assert language_of(f"{own[0]} “{' '.join(quoted.split()[:12])}” {own[0]}") in (*OWN, None)


@pytest.mark.parametrize(
    ("text", "latin"),
    [
        ("Запах роз наполнил дом.", False),
        ("роза", False),
        ("Ἡ ὀσμὴ τῶν ῥόδων.", False),
        ("ריח הורדים", False),
        ("رائحة الورد", False),
        ("薔薇の香り", False),
        ("The word роза means rose.", True),
        ("Die ſchöne Roſe", True),
        ("ꝛoſe ꝑfume", True),
        ("𝔯𝔬𝔰𝔢𝔫", True),
        ("Ｒｏｓｅ", True),
        ("1790 ½", True),
    ],
)
def test_other_letters_are_told_at_once(text, latin):
    assert is_latin(text) == latin


def test_every_list_has_a_name_and_enough_words():
    assert SMALL_WORDS.keys() == NAMES.keys()
    assert all(
        len(words) >= 50 and all(w == w.casefold() and w.isalpha() for w in words) for words in SMALL_WORDS.values()
    )


def weights(folder, tmp_path, card: object) -> MustiPipeline:
    """The tiny weights with a card."""
    copy = shutil.copytree(folder, tmp_path / "weights")
    if card is not None:
        (copy / "metrics.json").write_text(json.dumps(card))
    return MustiPipeline.from_pretrained(copy, device="cpu", precision="float32")


def told(pipe, picture, passage: str) -> list[str]:
    notices = [n for n in pipe(picture, passage).notices if "not measured on such passages" in n]
    assert notices == [n for n in pipe.rank(picture, [passage])[0][1].notices if n in notices]
    return notices


def test_weights_tell_of_languages_that_their_card_does_not_know(folder, tmp_path, picture):
    pipe = weights(folder, tmp_path, {"test": {"languages": {"en": {"pairs": 3}, "de": {"pairs": 2}}}})
    assert (
        told(pipe, picture, OWN["en"][0])
        == told(pipe, picture, OWN["de"][0])
        == told(pipe, picture, "De geur van rozen.")
        == []
    )
    for tag, text in [*FOREIGN, ("fr", OWN["fr"][0])]:
        (notice,) = told(pipe, picture, text)
        assert notice == (
            f"The passage seems to be in {NAMES[tag]}; these weights were not measured on such passages, so "
            "the answer may well be wrong."
        )
        assert in_language("sl", lambda tag=tag: say(NAMES[tag])) in in_language(
            "sl", lambda notice=notice: say(notice)
        )
    (notice,) = told(pipe, picture, "Запах роз наполнил дом.")
    assert "not in Latin letters" in notice and in_language("de", lambda: say(notice)).startswith(
        "Die Textstelle steht nicht"
    )


@pytest.mark.parametrize(
    "card",
    [
        None,
        {},
        {"test": 3},
        {"test": {}},
        {"test": {"languages": ["en"]}},
        {"test": {"languages": None}},
        {"test": {"languages": {}}},
    ],
)
def test_without_a_card_nothing_is_told(folder, tmp_path, picture, card):
    pipe = weights(folder, tmp_path, card)
    assert all(told(pipe, picture, text) == [] for _, text in [*FOREIGN, ("ru", "Запах роз наполнил дом.")])


def test_weights_measured_on_other_letters_tell_nothing_of_letters(folder, tmp_path, picture):
    pipe = weights(folder, tmp_path, {"test": {"languages": {"en": {}, "ru": {}}}})
    assert told(pipe, picture, "Запах роз наполнил дом.") == [] and told(pipe, picture, FOREIGN[0][1])
