"""The page in five languages: nothing is left untranslated, and the browser's language is the one that is said."""

import contextvars
import pickle
import re
from string import Formatter

import pytest

import app
from musti_model import InputError, MustiPipeline, Sentence
from page.language import NAMES, chosen, in_language, number, say, translations, wanted
from tests.browser import answered, ask, new_context, open_section
from tests.texts import texts_of_page

TAGS = sorted(NAMES.keys() - {"en"})


@pytest.mark.parametrize(
    ("header", "tag"),
    [
        ("", "en"),
        ("de", "de"),
        ("de-AT,de;q=0.9,en;q=0.8", "de"),
        ("en-GB,fr;q=0.9", "en"),
        ("pt,fr;q=0.5,it;q=0.7", "it"),
        ("*", "en"),
        ("sl;q=0,fr;q=0.1", "fr"),
        ("fr;q=nonsense,it", "it"),
        ("ja,zh;q=0.5", "en"),
        ("DE-ch", "de"),
        ("de; q=0.9, en; q=0.5", "de"),
        ("en;q=0.3,sl;Q=0.8", "sl"),
        ("de;q=1.0.0", "en"),
    ],
)
def test_the_language_liked_best(header, tag):
    assert chosen(header) == tag


def fields(text: str) -> list[str]:
    """Fields with their formats, and the marks that the browser fills in."""
    return sorted(
        f"{name}!{conversion}:{form}" for _, name, form, conversion in Formatter().parse(text) if name is not None
    ) + sorted(re.findall(r"\[[abv]\]", text))


@pytest.fixture(scope="module")
def texts() -> set[str]:
    return texts_of_page(MustiPipeline.from_pretrained())


@pytest.mark.parametrize("tag", TAGS)
def test_every_text_is_translated(tag, texts):
    said = translations()[tag]
    assert texts - set(said) == set()
    assert set(said) - texts == set(), "translations of what is not said any more"
    for text, translation in said.items():
        assert translation.strip() and fields(translation) == fields(text), text
        assert re.findall(r"</?\w+>", translation) == re.findall(r"</?\w+>", text), text
        assert translation.count("**") == text.count("**"), text


def test_every_language_that_is_offered_has_a_translation():
    assert sorted(translations()) == TAGS and len(TAGS) >= 4


def test_a_sentence_is_its_english_text_and_keeps_its_template(monkeypatch):
    told = Sentence("{n} of {what}", n=3, what=Sentence("roses"))
    assert told == "3 of roses" and isinstance(told, str)
    for copied in (
        pickle.loads(pickle.dumps(told)),
        pickle.loads(pickle.dumps(InputError("{n} of {what}", n=3, what=told.values["what"]))).args[0],
    ):
        assert copied == told and copied.template == "{n} of {what}" and copied.values["what"].template == "roses"
    assert Sentence("{braces} stay without values") == "{braces} stay without values"
    monkeypatch.setattr("page.language.language", lambda: "xx")
    monkeypatch.setattr(
        "page.language.translations", lambda: {"xx": {"{n} of {what}": "{what}: {n}", "roses": "Rosen"}}
    )
    assert say(told) == "Rosen: 3" and say("{n} of {what}", n=1, what="roses") == "roses: 1"
    assert say("unknown {x}", x=1) == "unknown 1"


VISIBLE = """(left_out) => {
  const found = [], walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const e = walk.currentNode.parentElement, text = walk.currentNode.textContent.trim();
    if (text && !e.closest(left_out) && e.checkVisibility()) found.push(text);
  }
  return found;
}"""
# What people wrote, names, and what Gradio itself says.
LEFT_OUT = (
    "script, style, #card, #weights, .passage, .gate-passage, nav.languages, textarea, footer, .gallery, "
    "[data-testid=dataset], table.votes td, #examples, .upload-container, [data-testid=image], button.center"
)


def texts_seen(browser, url, flower, locale: str) -> set[str]:
    """All that stands on the page, one tab after another, for a browser of a language."""
    context = new_context(browser, locale=locale, viewport={"width": 1280, "height": 1100})
    page = context.new_page()
    page.goto(url)
    page.wait_for_function("tag => document.documentElement.lang === tag", arg=locale[:2])
    page.locator("#picture input[type=file]").set_input_files(str(flower.with_name("candle.jpg")))
    page.locator("#picture img").first.wait_for()
    page.locator("#passage textarea").fill("Das Pferd dampfte nach dem Ritt, und der ganze Stall roch nach Leder.")
    page.locator("#run").click()
    answered(page)
    for name in ("why", "what-if", "gate", "attention", "vote"):
        open_section(page, name)
    for told in ("#faithful-evidence details", "#faithful-evidence-map details"):
        page.locator(told).evaluate("e => e.open = true")
    seen = set(page.evaluate(VISIBLE, LEFT_OUT))
    page.locator("#show-around").click()
    page.locator("#tour-text p").wait_for()
    page.wait_for_timeout(500)
    answered(page)
    seen |= set(page.evaluate(VISIBLE, LEFT_OUT))
    page.locator("#tour-end").click()
    for at in range(page.get_by_role("tab").count()):
        tab = page.get_by_role("tab").nth(at)
        if tab.is_visible():
            tab.click()
            page.wait_for_timeout(200)
            seen |= set(page.evaluate(VISIBLE, LEFT_OUT))
    context.close()
    return seen


@pytest.fixture(scope="module")
def english(browser, url, flower) -> set[str]:
    return texts_seen(browser, url, flower, "en-GB")


@pytest.mark.parametrize("locale", ["de-AT", "sl"])
def test_no_english_is_left_on_the_page(browser, url, flower, english, locale):
    other = texts_seen(browser, url, flower, locale)
    # words with values
    alike = {t for t in english & other if len(re.findall(r"[^\W\d_]{3,}", t)) > 1 and not re.search(r"\([+-]\d", t)}
    paper = {"Image-guided Feature Extractor on the MUSTI dataset"}
    assert {t for t in alike - paper if not any(t[:40] in e.passage for e in app.EXAMPLES)} == set()
    assert len(other) > 60


def test_errors_and_notices_are_said_in_the_visitor_s_language(browser, starter_url, flower):
    context = new_context(browser, locale="fr-FR")
    page = context.new_page()
    page.goto(starter_url)
    page.wait_for_function("() => document.documentElement.lang === 'fr'")
    page.wait_for_function(
        "title => document.title === title", arg=translations()["fr"]["Do picture and passage smell alike?"]
    )
    page.get_by_text("Voici venir les temps").first.click()
    page.locator("#verdict h2").wait_for()
    page.wait_for_timeout(500)
    assert (
        "Image" in page.locator("#picture label").first.inner_text()
        and "Picture" not in page.locator("#picture").inner_text()
    )
    page.reload()
    page.wait_for_function(
        "title => document.title === title", arg=translations()["fr"]["Do picture and passage smell alike?"]
    )
    page.locator("#passage textarea").fill("?!")
    page.locator("#run").click()
    said = translations()["fr"]
    page.get_by_text(said["Choose a picture first."]).wait_for()
    page.locator("#picture input[type=file]").set_input_files(str(flower))
    page.locator("#picture img").first.wait_for()
    page.locator("#run").click()
    page.get_by_text(said["The passage holds no words, only signs or digits; paste a text."]).wait_for()
    page.locator("#passage textarea").fill("Chapitre second, où rien n'est décidé.")
    page.locator("#run").click()
    page.locator("#verdict .notice").first.wait_for()
    assert (
        said["Cannot tell: I read none of the things I know in the passage."]
        in page.locator("#verdict h2").inner_text()
    )
    notice = said[
        "The model found none of the {count} smell objects it knows in this passage, so its answer says little."
    ].format(count=52)
    assert notice in page.locator("#verdict").inner_text()
    context.close()


def test_a_borrowed_gpu_speaks_the_visitor_s_language(pipe, monkeypatch):
    """Its process knows no visitor; what it is given says which language to use."""
    import gradio as gr

    from page import calls, language

    def elsewhere(function):
        return lambda *given: contextvars.Context().run(function, *given)

    monkeypatch.setattr(calls, "language", lambda: "it")
    with pytest.raises(gr.Error, match=re.escape(translations()["it"]["Choose a picture first."])):
        calls.calls_of(pipe, elsewhere, calls.new_lanes()).predict(None, "rose")
    assert language.language() == "en"


def test_english_stays_english(page, flower):
    ask(page, flower, "She smelled the roses.")
    page.locator("#verdict h2").wait_for()
    assert page.evaluate("document.documentElement.lang") == "en"
    assert "Probability of YES" in page.locator("#verdict").inner_text()


def test_the_page_is_switched_to_another_language(page, url, flower):
    """By a link that keeps the language in the address; answers and errors follow, and decimals are written as the
    language does."""
    page.locator("nav.languages").get_by_role("link", name="Deutsch").click()
    said = translations()["de"]
    page.wait_for_function("() => document.documentElement.lang === 'de'")
    assert page.url.endswith("?lang=de")
    page.locator("#run").click()
    page.get_by_text(said["Choose a picture first."]).wait_for()
    page.locator("#picture input[type=file]").set_input_files(str(flower))
    page.locator("#picture img").first.wait_for()
    page.locator("#passage textarea").fill("She smelled the roses.")
    page.locator("#passage textarea").press("Control+Enter")
    page.locator("#verdict h2").wait_for()
    assert re.search(r"Wahrscheinlichkeit für JA: \d,\d{3}", page.locator("#verdict").inner_text())


def test_picture_and_answer_stay_when_the_language_changes(page, flower):
    ask(page, flower, "She smelled the roses.")
    point = "Point at a word or at a place in the picture; a click keeps it."
    page.locator(".gate-told", has_text=point).wait_for()
    for name, tag, told in (("Deutsch", "de", "Wahrscheinlichkeit für JA"), ("English", "en", "Probability of YES")):
        page.locator("nav.languages").get_by_role("link", name=name).click()
        page.wait_for_function("tag => document.documentElement.lang === tag", arg=tag)
        page.locator("#verdict", has_text=told).wait_for()
        page.locator(".gate-told", has_text=say_in(tag, point)).wait_for()  # the board is drawn anew as well
        assert page.url.endswith(f"?lang={tag}") and page.locator("#picture img").count()
        assert page.locator("nav.languages [aria-current]").inner_text() == name
        assert page.locator("#passage textarea").input_value() == "She smelled the roses."
        assert page.locator("#run").inner_text() == say_in(tag, "Compare")


def say_in(tag: str, text: str) -> str:
    return in_language(tag, lambda: say(text))


def test_an_address_can_only_ask_for_a_language_that_is_there():
    assert wanted({"referer": "https://host/?lang=sl", "accept-language": "de"}) == "sl"
    for referer in (
        "",
        "https://host/?lang=xx",
        "https://host/?lang=",
        "https://host/",
        "https://host/?lang=<b>",
        "https://host/?language=sl",
    ):
        assert wanted({"referer": referer, "accept-language": "de"}) == "de"


def test_decimals_are_written_as_the_language_does():
    assert (
        in_language("de", lambda: say("{p:.3f} of {n}", p=0.5, n="1.5")) == "0,500 of 1.5"
        and say("{p:.3f}", p=0.5) == "0.500"
    )
    assert (
        in_language("fr", lambda: number(1.25, "+.2f")) == "+1,25" and in_language("sl", lambda: say("{n}", n=3)) == "3"
    )
