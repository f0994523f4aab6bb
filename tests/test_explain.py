"""Explanation maths on cases worked by hand, and what is drawn of it."""

import json
import re
from html import escape

import numpy as np
import pytest
import torch
from PIL import Image

from musti_model import figures, frames
from musti_model.methods import looks


def layer(rows) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float32)[None]  # one head


FIRST = layer([[0.2, 0.8, 0.0], [0.0, 1.0, 0.0], [0.5, 0.0, 0.5]])
SECOND = layer([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])


def test_rollout_by_hand():
    # half identity: FIRST rows (.6 .4 0), (0 1 0), (.25 0 .75); SECOND's class row (.5 0 .5)
    # class token: .5 * (.6 .4 0) + .5 * (.25 0 .75) = (.425 .2 .375)
    assert torch.allclose(looks.rollout(torch.stack([FIRST, SECOND])), torch.tensor([0.2, 0.375]))
    # the other order: .6 * (.5 0 .5) + .4 * (0 1 0) = (.3 .4 .3)
    assert torch.allclose(looks.rollout(torch.stack([SECOND, FIRST])), torch.tensor([0.4, 0.3]))


def test_class_attention_takes_the_last_layer():
    assert torch.equal(looks.class_attention(torch.stack([FIRST, SECOND])), torch.tensor([[0.0, 1.0]]))


def test_grad_cam_by_hand():
    maps = torch.tensor([[[1.0, 2.0]], [[3.0, 0.0]]])
    gradient = torch.tensor([[[1.0, 3.0]], [[-1.0, -1.0]]])  # means 2 and -1
    assert torch.equal(looks.grad_cam(maps, gradient), torch.tensor([[0.0, 4.0]]))


def test_words_and_places():
    assert looks.to_words(torch.tensor([0.5, 0.0, 0.75, 0.0]), [(0, 2), (1,)]) == [0.625, 0.0]
    met = looks.places_met(torch.tensor([[1.0, 0, 0], [0.5, 0.5, 0], [0, 0.25, 0.75], [0, 0, 1.0]]), [(1, 2), (3,)])
    # (.5 + .25) / 2 and .75 / 2, over the places alone
    assert torch.allclose(met, torch.tensor([[0.5, 0.5], [0.0, 1.0]]))
    weights = torch.tensor([[1.0, 0, 0], [0, 1.0, 0], [0, 0.5, 0.5], [0, 0, 1.0]])
    places = looks.to_places(torch.tensor([9.0, 3.0, 6.0, 0.0]), weights, (1, 2))
    assert torch.allclose(places, torch.tensor([[(3 + 0.5 * 6) / 1.5, 0.5 * 6 / 1.5]]))


def test_places_met_one_to_one_keep_their_values():
    values = torch.tensor([9.0, 1.0, 2.0, 3.0, 4.0])  # position 0 meets the whole picture, which has no place
    assert torch.equal(looks.to_places(values, torch.eye(5), (2, 2)), torch.tensor([[1.0, 2.0], [3.0, 4.0]]))


def test_a_constant_share_stays_constant_on_the_picture():
    weights = torch.tensor([[1.0, 0, 0, 0], [0, 0.7, 0.3, 0], [0, 0, 0.2, 0.8]])
    places = looks.to_places(torch.full((3,), 0.3), weights, (1, 3))
    assert torch.allclose(places, torch.full((1, 3), 0.3))
    assert np.allclose(frames.to_frame(places, 7, 5), 0.3)


def test_rollout_takes_the_mean_of_the_heads():
    # class rows (.2 .8 0) and (.6 0 .4): mean (.4 .4 .2), half identity (.7 .2 .1)
    other = layer([[0.6, 0.0, 0.4], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    assert torch.allclose(looks.rollout(torch.cat([FIRST, other])[None]), torch.tensor([0.2, 0.1]))


def test_text_attention_is_the_summary_tokens_row_of_the_last_layer():
    other = layer([[0.6, 0.0, 0.4], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    attention = torch.stack([torch.cat([SECOND, SECOND]), torch.cat([FIRST, other])])
    assert torch.allclose(looks.class_word_attention(attention), torch.tensor([0.4, 0.4, 0.2]))


def test_to_frame_keeps_orientation():
    frame = frames.to_frame(torch.tensor([[0.0, 1.0], [0.0, 1.0]]), width=6, height=4)
    assert frame.shape == (4, 6) and (frame[:, 0] == 0).all() and (frame[:, -1] == 1).all()


def test_a_flat_map_is_drawn_flat():
    picture = Image.new("RGB", (8, 4), "grey")
    nearly = np.full((4, 8), 0.5, dtype=np.float32)
    nearly[0, 0] = 0.501
    drawn = np.asarray(figures.overlay(picture, nearly)).astype(int)
    assert np.ptp(drawn.reshape(-1, 3), axis=0).max() <= 2
    nearly[0, 0] = 0.0
    drawn = np.asarray(figures.overlay(picture, nearly)).astype(int)
    assert np.ptp(drawn.reshape(-1, 3), axis=0).max() > 40


def test_overlay_refuses_the_wrong_frame_and_nan():
    picture = Image.new("RGB", (8, 4))
    with pytest.raises(ValueError):
        figures.overlay(picture, np.zeros((8, 4)))
    with pytest.raises(ValueError):
        figures.overlay(picture, np.full((4, 8), np.nan))
    assert np.array_equal(np.asarray(figures.overlay(picture, np.ones((4, 8)), opacity=0)), np.asarray(picture))


def test_words_of_users_are_escaped():
    text = 'rose <img src=x onerror=alert(1)> "q" ${alert(1)}'
    html = figures.words_html(text, [(0, 4), (5, 9)], [0.1, 0.9], "share")
    assert "<img" not in html and "&lt;img" in html
    assert 'data-note="share 0.900"' in html and html.count("tabindex") == 2


@pytest.mark.parametrize("value", [0.0, 0.3])
def test_a_constant_map_is_drawn_in_one_colour(value):
    drawn = np.asarray(figures.overlay(Image.new("RGB", (6, 5), "white"), np.full((5, 6), value, dtype=np.float32)))
    assert (drawn == drawn[0, 0]).all()


def test_scripts_in_a_passage_stay_text():
    text = '${alert(1)} <img src=x onerror=alert(1)> "><b'
    start = text.index("onerror")
    html = figures.words_html(
        text, [(2, 7), (start, start + 7), (len(text) - 4, len(text))], [0.1, 0.9, 0.5], 'a"<label>'
    )
    # all of it, in order, with nothing turned into a tag
    assert re.sub("<[^>]+>", "", html).startswith(escape(text, quote=True))
    assert not re.search(r"<(?!/?(div|span)\b)", html)
    assert 'a"<' not in html


def test_what_was_not_read_is_marked():
    html = figures.words_html("roses and more", [(0, 5)], [0.4], "share")
    assert '<span class="unread"> and more</span>' in html
    assert "unread" not in figures.words_html("roses", [(0, 5)], [0.4], "share")


def test_what_is_saved_is_no_larger_than_asked(pipe, tmp_path):
    e = pipe.explain(Image.effect_noise((1500, 600), 80).convert("RGB"), "The roses smelled sweet.")
    for largest, size in ((None, [1500, 600]), (300, [300, 120]), (1000, [1000, 400])):
        # 1000 is what one gets unasked
        folder = e.save(tmp_path / str(largest), **({} if largest == 1000 else {"largest": largest}))
        manifest = json.loads((folder / "manifest.json").read_text())
        assert manifest["picture"] == {"file": "picture.png", "size": size, "full_size": [1500, 600]}
        for name in manifest["maps"].values():
            assert (
                list(np.load(folder / name["values"]).shape) == size[::-1]
                and list(Image.open(folder / name["overlay"]).size) == size
            )
        assert list(Image.open(folder / "picture.png").size) == size
    assert e.image.size == (1500, 600)
