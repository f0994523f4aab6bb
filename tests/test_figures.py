"""Colours, legends and the highlighted passage: what people see says what the numbers say, and users' words stay
text."""

import json
from html.parser import HTMLParser
from types import SimpleNamespace

import matplotlib
import numpy as np
import pytest
from PIL import Image

from musti_model import figures
from musti_model.results import Explanation, Gate, GateWeights

ATTACKS = [
    "${alert(1)}",
    "<img src=x onerror=alert(1)>",
    "`${alert(1)}`",
    "{{this}}",
    "</span><script>alert(1)</script>",
    "'\"onfocus=alert(1) x='",
]


class Seen(HTMLParser):
    """What a browser would make of it: tags, attributes, and the text of the passage."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags, self.attributes, self.text = set(), [], ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.text += data


def spread(values: np.ndarray) -> int:
    """Largest difference of a colour channel over a map drawn opaque on white."""
    image = Image.new("RGB", values.shape[::-1], "white")
    return int(np.ptp(np.asarray(figures.overlay(image, values, 1.0)).reshape(-1, 3).astype(int), axis=0).max())


def colour(x: float) -> np.ndarray:
    return np.round(np.array(matplotlib.colormaps[figures.COLOURS](x)[:3]) * 255)


def test_the_scale_runs_from_nought_to_the_largest():
    assert figures.scale_of(np.array([0.2, 0.4])) == (0.0, 0.4)
    assert figures.scale_of(np.zeros(3)) == (0.0, 1.0)
    with pytest.raises(ValueError, match="not numbers"):
        figures.scale_of(np.array([0.2, np.inf]))


def test_a_little_more_contrast_is_drawn_as_a_little_more():
    """No jump: a map that varies by 6 % is not blown up to the whole colour bar."""
    shades = [spread(np.linspace(1 - s, 1, 12, dtype=np.float32).reshape(3, 4)) for s in (0.0, 0.02, 0.04, 0.06, 0.08)]
    assert shades[0] == 0 and shades == sorted(shades) and shades[-1] < 60
    assert max(np.diff(shades)) < 25


def test_overlay_by_hand():
    white = Image.new("RGB", (2, 1), "white")
    values = np.array([[0.0, 0.5]])
    opaque = np.asarray(figures.overlay(white, values, 1.0))
    assert np.array_equal(opaque[0, 0], colour(0)) and np.array_equal(opaque[0, 1], colour(1.0))
    half = np.asarray(figures.overlay(white, values, 0.5)).astype(float)
    assert np.abs(half[0, 0] - (255 + colour(0)) / 2).max() <= 1
    fixed = np.asarray(figures.overlay(white, values, 1.0, scale=(0.0, 1.0)))
    assert np.array_equal(fixed[0, 1], colour(0.5))  # a given range makes maps comparable
    with pytest.raises(ValueError):
        figures.overlay(white, np.array([[0.0, np.nan]]), scale=(0.0, 1.0))


@pytest.mark.parametrize("attack", ATTACKS)
def test_attacks_stay_text_in_and_between_words(attack):
    passage = f"rose {attack} {attack} more {attack}"
    second = passage.index(attack, 5 + len(attack))
    html = figures.words_html(passage, [(0, 4), (second, second + len(attack))], [0.1, 0.9], f"share {attack}")
    seen = Seen(html)
    assert seen.tags == {"div", "span"}
    named = {"class", "tabindex", "data-note", "aria-label", "style", "role", "dir"}
    assert {name for name, _ in seen.attributes} == named
    assert seen.text.startswith(passage)  # every character, in order
    assert ("data-note", f"share {attack} 0.900") in seen.attributes
    assert "<script" not in html and "<img" not in html


def test_words_have_number_focus_and_readable_ink():
    html = figures.words_html("dark bright", [(0, 4), (5, 11)], [0.0, 0.42], "image share")
    attributes = Seen(html).attributes
    assert attributes.count(("tabindex", "0")) == 2
    assert ("data-note", "image share 0.420") in attributes and (
        "aria-label",
        "bright, image share 0.420",
    ) in attributes
    styles = [v for k, v in attributes if k == "style" and "color" in v and "gradient" not in v]
    assert styles[0].endswith("color:#fff") and styles[1].endswith("color:#000")


def test_every_shade_keeps_its_ink_readable():
    """WCAG contrast of ink on shade, worst over the whole bar."""

    def luminance(rgb):
        c = np.asarray(rgb)
        return float(np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722])

    n = 101
    html = figures.words_html("a" * n, [(i, i + 1) for i in range(n)], list(np.linspace(0, 1, n)), "x")
    styles = [v for k, v in Seen(html).attributes if k == "style" and "gradient" not in v]
    worst = 21.0
    for style in styles:
        shade, ink = (part.split(":")[1] for part in style.split(";"))
        a, b = (luminance(matplotlib.colors.to_rgb(x)) for x in (shade, ink))
        worst = min(worst, (max(a, b) + 0.05) / (min(a, b) + 0.05))
    assert len(styles) == n and worst >= 4.5


def test_words_use_the_given_scale_and_the_legend_says_it():
    own = figures.words_html("one", [(0, 3)], [0.2], "share")
    fixed = figures.words_html("one", [(0, 3)], [0.2], "share", scale=(0.0, 1.0))
    shade = matplotlib.colors.to_hex
    assert f"background:{shade(matplotlib.colormaps[figures.COLOURS](1.0))}" in own and "0 – 0.2" in own
    assert f"background:{shade(matplotlib.colormaps[figures.COLOURS](0.2))}" in fixed and "0 – 1" in fixed


def test_words_and_values_must_agree():
    with pytest.raises(ValueError):
        figures.words_html("one two", [(0, 3), (4, 7)], [0.2], "share")
    with pytest.raises(ValueError, match="not numbers"):
        figures.words_html("one", [(0, 3)], [float("nan")], "share")
    assert Seen(figures.words_html("nothing read", [], [], "share")).text.startswith("nothing read")


def explanation(values: np.ndarray) -> Explanation:
    answer = {"label": "YES", "probability": 0.7, "threshold": 0.5, "similarities": {"vit": 0.3}, "notices": []}
    prediction = SimpleNamespace(to_json=lambda: dict(answer), logit=0.85, votes={"vit": 0.6}, vote_bias=0.25)
    return Explanation(
        prediction=prediction,
        image=Image.new("RGB", (4, 3), "white"),
        passage="čaj",
        words=["čaj"],
        word_spans=[(0, 3)],
        gates={"vit": Gate([0.25], np.array([[[1.0]]])), "cnn": Gate([0.75], None)},
        gate_weights=GateWeights(0.1, 0.2, 0.3),
        maps={"rollout:vit": values},
        heads={"vit": np.arange(8, dtype=np.float32).reshape(2, 2, 2)},
        word_attention={"vit": [0.125]},
        settings={"weights": "tiny", "revision": "abc", "versions": {"torch": "0"}},
    )


def test_save_keeps_the_raw_numbers_and_says_what_was_drawn(tmp_path):
    values = np.linspace(0.1, 0.4, 12, dtype=np.float32).reshape(3, 4)
    made = explanation(values)
    folder = made.save(tmp_path / "new" / "folder")
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    entry = manifest["maps"]["rollout:vit"]
    assert (
        entry["scale"] == pytest.approx([0, 0.4])
        and entry["min"] == pytest.approx(0.1)
        and entry["max"] == pytest.approx(0.4)
    )
    assert np.array_equal(np.load(folder / entry["values"]), values)
    assert np.array_equal(
        np.asarray(Image.open(folder / entry["overlay"])), np.asarray(figures.overlay(made.image, values))
    )
    assert np.array_equal(np.load(folder / manifest["heads"]["vit"]), made.heads["vit"])
    assert manifest["prediction"]["votes"] == {"vit": 0.6} and manifest["prediction"]["vote_bias"] == 0.25
    assert manifest["prediction"]["logit"] == 0.85 and {m["colours"] for m in manifest["maps"].values()} == {
        figures.COLOURS
    }
    assert manifest["settings"] == made.settings and manifest["words"] == ["čaj"]
    assert manifest["gate_weights"] == {"w_image": 0.1, "w_text": 0.2, "bias": 0.3}
    assert manifest["gates"] == {
        "vit": {"words": [0.25], "meeting": [[[1.0]]]},
        "cnn": {"words": [0.75], "meeting": None},
    }
    assert made != explanation(values)  # compared as objects: arrays have no single truth value


def test_a_map_that_is_not_finite_is_not_saved_as_if_it_were(tmp_path):
    with pytest.raises(ValueError, match="not numbers"):
        explanation(np.full((3, 4), np.nan, dtype=np.float32)).save(tmp_path)
    assert not (tmp_path / "manifest.json").exists()


def test_heads_reach_the_pictures_frame():
    head = explanation(np.ones((3, 4), dtype=np.float32)).head_map("vit", 1)  # [[4, 5], [6, 7]]
    assert head.shape == (3, 4) and head.dtype == np.float32
    assert head[[0, 0, -1, -1], [0, -1, 0, -1]] == pytest.approx([4, 5, 6, 7])


def test_signed_colours_are_alike_on_both_sides_of_nothing():
    image = Image.new("RGB", (3, 1), (10, 200, 30))
    values = np.array([[-2.0, 0.0, 1.0]])
    assert figures.signed_scale_of(values) == (-2.0, 2.0) and figures.signed_scale_of(0 * values) == (-1.0, 1.0)
    drawn = np.asarray(figures.overlay(image, values, 1.0, signed=True)).astype(int)
    assert drawn[0, 1].tolist() == [10, 200, 30]  # nothing for or against: the picture itself
    assert drawn[0, 0, 2] > drawn[0, 0, 0] and drawn[0, 2, 0] > drawn[0, 2, 2]  # against is purple, for is orange
    html = figures.words_html("no yes", [(0, 2), (3, 6)], [-0.5, 0.25], "logit", signed=True)
    assert 'data-note="logit -0.500"' in html and 'data-note="logit +0.250"' in html and "-0.5</span>" in html


def test_evidence_is_saved_with_its_own_colours(pipe, tmp_path):
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 30, 3), dtype=np.uint8))
    explanation = pipe.explain(picture, "The roses smelled sweet.")
    folder = explanation.save(tmp_path / "saved")
    manifest = json.loads((folder / "manifest.json").read_text())
    entry = manifest["maps"]["evidence"]
    assert entry["colours"] == figures.SIGNED and entry["scale"][0] == -entry["scale"][1]
    assert (
        np.array_equal(np.load(folder / entry["values"]), explanation.evidence.map)
        and (folder / "evidence-vit.png").exists()
    )
    assert manifest["evidence"]["methods"]["words"] == "occlusion"
