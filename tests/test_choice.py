"""Several sets of weights on one address: what is offered, that each is loaded once and only when it is asked for, and
the choice in the browser."""

import contextlib
import functools
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from starlette.testclient import TestClient

import app
import page.choice
from musti_model import MustiPipeline, MustiProcessor, WeightsError
from musti_model.weights import EMBEDDED, STARTER
from page.choice import Choice, choice_html, listed, offers_of
from page.language import in_language
from tests.browser import answered, ask, new_tab, serve
from tests.conftest import ANSWER, WORD, tiny_model
from tests.test_door import GONE, META, Machine

BROWSER = {"accept": "text/html,*/*"}


@pytest.mark.parametrize("text", ["a/b,c/d@v1", " a/b , c/d@v1 ,\n", "a/b\nc/d@v1", "a/b\tc/d@v1,,"])
def test_a_list_is_separated_by_commas_or_white_space(text):
    assert listed(text) == ["a/b", "c/d@v1"]


def test_there_is_no_choice_unless_there_is_a_list():
    assert listed(" , \n") == [] and offers_of([]) == []
    demo, settings = app.pages([])
    assert 'class="weights"' not in str(demo.config) and [
        m.cls.__name__ for m in settings["app_kwargs"]["middleware"]
    ] == ["Door"]


def test_each_is_offered_once_under_an_address_of_its_own():
    offers = offers_of(["a/b", str(STARTER), "a/b@v1.2", "a/b", f"{STARTER}/", "/x/my runs", "/x/my-runs", "..."])
    assert [o.name for o in offers] == ["a/b", EMBEDDED, "a/b@v1.2", "/x/my runs", "/x/my-runs", "..."]
    assert [o.path for o in offers] == [
        "",
        "/weights/embedded-starter",
        "/weights/a-b@v1-2",
        "/weights/x-my-runs",
        "/weights/x-my-runs~4",
        "/weights/~5",
    ]


def test_links_name_each_and_mark_the_one_that_answers():
    offers = offers_of(["<b>/c", str(STARTER), "/straße"])
    told = choice_html(offers, offers[1], "/root")
    assert [part.split('"')[0] for part in told.split('href="')[1:]] == [
        "/root/",
        "/root/weights/embedded-starter/",
        "/root/weights/stra%C3%9Fe/",
    ]
    assert "&lt;b&gt;/c" in told and told.count("aria-current") == 1 and 'starter/" aria-current' in told
    assert "mitgelieferte Startgewichte" in in_language("de", lambda: choice_html(offers, offers[1], ""))


class Shelf:
    """Weights that are loaded as a test says, and pages that say whose they are."""

    def __init__(self, load) -> None:
        self.loaded, self.open, self.load = [], set(), load
        self.offers = offers_of(["first/one", "a/b", "c/d"])
        first = Starlette(routes=[Route("/{path:path}", lambda request: PlainTextResponse("first"))])
        self.client = TestClient(Choice(first, self.offers, self._load, self._page))

    def _load(self, offer):
        self.loaded.append(offer.source)
        return self.load(offer)

    def _page(self, offer, pipe):
        @contextlib.asynccontextmanager
        async def lifespan(_):
            self.open.add(offer.source)
            yield
            self.open.remove(offer.source)

        routes = [
            Route(
                "/{path:path}",
                lambda request: PlainTextResponse(f"{offer.source} {pipe} {request.path_params['path']}"),
            )
        ]
        return Starlette(routes=[Mount(offer.path, routes=routes)], lifespan=lifespan)


def test_weights_are_loaded_once_and_only_those_that_are_asked_for():
    begun, go = threading.Event(), threading.Event()

    def load(offer):
        begun.set()
        assert go.wait(10)
        return "pipe"

    shelf = Shelf(load)
    with shelf.client as client, ThreadPoolExecutor(2) as visitors:
        assert client.get("/").text == client.get("/weights/else/").text == "first" and not shelf.loaded
        both = [visitors.submit(client.get, "/weights/a-b/config") for _ in range(2)]
        assert begun.wait(10)
        waiting = client.get("/weights/a-b/", headers=BROWSER | {"accept-language": "de"})
        assert (
            waiting.status_code == 202
            and "Diese Gewichte werden geladen" in waiting.text
            and 'http-equiv="refresh"' in waiting.text
        )
        assert client.get("/").text == "first", "others wait for the load"
        go.set()
        assert [b.result(10).text for b in both] == ["a/b pipe config"] * 2
        assert client.get("/weights/a-b/", headers=BROWSER).text == "a/b pipe "
        assert shelf.loaded == ["a/b"] and shelf.open == {"a/b"}
    assert not shelf.open, "the page outlives the server"


def test_a_load_that_fails_is_told_and_tried_again_later(monkeypatch, caplog):
    monkeypatch.setattr(page.choice, "AGAIN", 0.5)
    problems = [
        WeightsError(
            "There are no weights {repo} on the Hub, or they are private; check the name or set HF_TOKEN.", repo="a/b"
        ),
        RuntimeError("CUDA: secret"),
    ]

    def load(offer):
        if problems:
            raise problems.pop(0)
        return "pipe"

    shelf = Shelf(load)
    with shelf.client as client:
        told = client.get("/weights/a-b/config", headers={"accept-language": "de"})
        assert (
            told.status_code == 503
            and told.json()["error"].startswith("Auf dem Hub gibt es")
            and len(shelf.loaded) == 1
        )
        told = client.get("/weights/a-b/?lang=it", headers=BROWSER)
        assert (
            told.status_code == 503
            and 'lang="it"' in told.text
            and "HF_TOKEN" in told.text
            and "refresh" not in told.text
            and len(shelf.loaded) == 1
        )
        assert client.get("/").text == "first" and client.get("/weights/c-d/").status_code == 503  # the other problem
        time.sleep(0.7)
        assert client.get("/weights/a-b/").text == "a/b pipe " and shelf.loaded == ["a/b", "c/d", "a/b"]
    assert "CUDA: secret" in caplog.text and "Traceback" in caplog.text


def test_what_goes_wrong_otherwise_is_no_riddle_and_no_secret():
    def load(offer):
        raise MemoryError("/secret/path")

    with Shelf(load).client as client:
        told = client.get("/weights/a-b/", headers=BROWSER | {"accept-language": "fr"}).text
    assert "secret" not in told and "pas pu être chargés" in told


def test_weights_that_fail_at_the_start_stay_to_be_chosen(folder, tmp_path):
    """As with ``MUSTI_MODEL``, the page then starts on the starter and says so."""
    demo, settings = app.pages([str(tmp_path / "gone"), str(folder)])
    assert [o.name for o in settings["app_kwargs"]["middleware"][0].kwargs["offers"]] == [
        EMBEDDED,
        str(tmp_path / "gone"),
        str(folder),
    ]
    assert "starter weights instead" in str(demo.config)


def test_where_a_gpu_is_lent_all_are_loaded_before_the_start(folder, tmp_path, monkeypatch):
    offers, real, loaded = (
        offers_of(["first/one", str(folder), str(tmp_path / "gone")]),
        MustiPipeline.from_pretrained,
        [],
    )
    monkeypatch.setattr(
        MustiPipeline, "from_pretrained", lambda source: loaded.append(source) or real(source, device="cpu")
    )
    app.loading(offers)
    assert not loaded
    monkeypatch.setattr(app, "on_gpu", functools.partial)  # another function that does the same
    load = app.loading(offers)
    assert loaded == [str(folder), str(tmp_path / "gone")]
    assert load(offers[1]).name == str(folder) and len(loaded) == 2
    with pytest.raises(WeightsError, match="no weights at"):
        load(offers[2])


# In the browser -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def served(tmp_path_factory, folder, tokenizer):
    """(address, folders: of the first weights, of the second, of none) of a page with a choice."""
    os.environ.setdefault("GRADIO_TEMP_DIR", str(tmp_path_factory.mktemp("gradio")))
    second = tmp_path_factory.mktemp("second")
    model = tiny_model(**WORD, objects=("rose", "smoke"), name="second")
    model.save_pretrained(second)
    MustiProcessor(model.config, tokenizer).save_pretrained(second)
    folders = [str(folder), str(second), str(tmp_path_factory.mktemp("none") / "gone")]
    demo, settings = app.pages(folders)
    address = serve(demo, settings)
    yield address, folders
    with httpx.stream(
        "GET", f"{address.rstrip('/')}{offers_of(folders)[1].path}/gradio_api/heartbeat/visitor"
    ) as visit:
        next(visit.iter_lines())
        begun = time.monotonic()
        demo.close()
    assert not demo.server.thread.is_alive() and time.monotonic() - begun < 5, (
        "an open page keeps the server from stopping"
    )


@pytest.fixture
def loads(monkeypatch):
    """-> the sources that are loaded from now on; each takes a second and a half."""
    real, sources = MustiPipeline.from_pretrained, []

    def slow(source):
        sources.append(source)
        time.sleep(1.5)
        return real(source)

    monkeypatch.setattr(MustiPipeline, "from_pretrained", slow)
    return sources


def opened(browser, address, **named):
    tab = new_tab(browser, **{"viewport": {"width": 1280, "height": 900}} | named)
    tab.goto(address)
    tab.locator("nav.weights").wait_for()
    return tab


def test_a_choice_that_fails_leaves_the_page_as_it_is(served, browser, flower, loads):
    address, folders = served
    tab = opened(browser, address)
    tab.locator("#picture input[type=file]").set_input_files(str(flower))
    tab.get_by_label("Passage").fill("A rose.")
    tab.locator("nav.weights").get_by_role("link", name=folders[2]).click()
    told = tab.locator(".weights-told")
    told.get_by_text("These weights are being loaded …").wait_for()
    told.get_by_text(f"There are no weights at {folders[2]}; give a folder or a Hub id such as user/name.").wait_for()
    assert (
        tab.url == address
        and tab.get_by_label("Passage").input_value() == "A rose."
        and tab.locator("#picture img").is_visible()
    )
    assert loads == folders[2:]
    tab.close()


def test_weights_are_chosen_by_keyboard_and_answer_on_a_page_of_their_own(served, browser, flower, loads):
    address, folders = served
    tab = opened(browser, f"{address}?lang=de&example=2")
    tab.get_by_role("navigation", name="Gewichte", exact=True).wait_for()
    here = tab.locator("nav.weights a[aria-current]")
    assert here.inner_text() == folders[0]
    here.focus()
    tab.keyboard.press("Tab")
    with tab.expect_navigation(url=lambda url: "/weights/" in url):
        tab.keyboard.press("Enter")
        tab.locator(".weights-told").get_by_text("Diese Gewichte werden geladen …").wait_for()
        other = opened(browser, address)  # another visitor, who asks for the same meanwhile
        other.locator("nav.weights").get_by_role("link", name=folders[1]).click()
    other.wait_for_url("**/weights/**")
    assert loads == folders[1:2] and tab.url.endswith("/?lang=de&example=2")
    answered(tab)  # the example goes along, and is asked
    assert here.inner_text() == folders[1] and folders[1] in tab.locator("#weights").inner_text()
    ask(other, flower, "A rose.")
    answered(other)
    other.get_by_text("The 2 objects these weights know").wait_for()
    other.locator("nav.weights").get_by_role("link", name=folders[0]).click()
    other.get_by_text("The 3 objects these weights know").wait_for()
    assert other.url == address and loads == folders[1:2]
    for each in (tab, other):
        each.close()


def test_machines_may_ask_each_and_the_same_bounds_stand_before_all(served, tmp_path, flower):
    from gradio_client import Client, handle_file

    address, folders = served
    root = address.rstrip("/") + offers_of(folders)[1].path
    client = Client(root, verbose=False, analytics_enabled=False, download_files=str(tmp_path))
    answer = client.predict(image=handle_file(str(flower)), passage="a rose", api_name="/predict")
    assert {name for name, _ in answer["objects_in_picture"]} == {"rose", "smoke"}
    machine = Machine(f"{root}/")
    event, answer = machine.call("predict", {"path": machine.upload(flower.read_bytes()), "meta": META}, "a rose")
    assert event == "complete" and set(answer[0]) == ANSWER
    assert machine.refused("predict", {"path": "/etc/passwd", "meta": META}, "a rose") == GONE
    assert (
        machine.http.post("/call/predict", content="[" * 100).status_code == 400
        and machine.http.get("/run-history").status_code == 404
    )
    assert machine.http.get("/file=/etc/passwd").status_code == 403


@pytest.mark.parametrize("locale", ["en-GB", "de-DE", "fr-FR", "it-IT", "sl-SI"])
def test_the_choice_fits_a_telephone(served, browser, locale):
    tab = opened(browser, served[0], viewport={"width": 390, "height": 800}, locale=locale)
    name = {"en": "Weights", "de": "Gewichte", "fr": "Poids", "it": "Pesi", "sl": "Uteži"}[locale[:2]]
    choice = tab.get_by_role("navigation", name=name, exact=True)
    choice.wait_for()
    links = choice.get_by_role("link").all()
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390
    assert len(links) == 3 and all(
        link.bounding_box()["x"] >= 0 and link.bounding_box()["x"] + link.bounding_box()["width"] <= 390
        for link in links
    )
    tab.close()
