"""What is found out about pictures before training: which cannot be used, and which are one picture."""

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from musti_model.errors import InputError
from musti_model.records import MustiPair, read_pairs
from tests import musti_file
from training.data.copies import SIDE, address_key, alike, colours, recognise
from training.data.folds import leaks
from training.data.parts import divide, usable
from training.data.ties import tied
from training.split import main


def scene(seed: int, size=(300, 200)) -> Image.Image:
    """Patches of colour that run into each other."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (7, 9, 3), dtype=np.uint8)).resize(
        size, Image.Resampling.BICUBIC
    )


def musti(folder: Path, images: list[str], **more) -> Path:
    rows = [
        {
            "id": i,
            "image": image,
            "language": "en",
            "text": f"Text {i} of a rose.",
            "subtask1_label": "YES" if i % 3 else "NO",
        }
        for i, image in enumerate(images)
    ]
    for key, values in more.items():
        for row, value in zip(rows, values, strict=True):
            row[key] = value
    (folder / "pairs.json").write_text(json.dumps(rows))
    return folder / "pairs.json"


def groups(file: Path) -> list[list[str]]:
    return recognise(read_pairs(file)[0], quiet=True).copies


def test_ties_by_hand():
    assert tied([["a"], ["b"], ["c", "a"], ["b", "d"], [], ["d", "c"]]) == [0, 0, 0, 0, 1, 0]
    assert tied([["a"], ["b"], ["a"]]) == [0, 1, 0] and tied([]) == []


def test_colours_by_hand(tmp_path):
    """A pixel that lies on a border counts in part on both sides: 24 pixels are 16 places of one and a half."""
    pixels = np.zeros((SIDE, 24, 3), dtype=np.uint8)
    pixels[:, 1] = 90  # half in the first place, half in the second
    pixels[:, 3, 0] = 30  # whole in the third
    Image.fromarray(pixels).save(tmp_path / "a.png")
    found = colours(tmp_path / "a.png")
    assert (
        found.shape == (SIDE, SIDE, 3)
        and np.allclose(found[:, :4, 0], [30, 30, 20, 0], atol=1e-4)
        and np.allclose(found[:, :4, 1], [30, 30, 0, 0], atol=1e-4)
    )


def test_alike_by_hand():
    """One stripe, a stair, the stair in other colours, the stair upside down, the stair a little otherwise."""
    stair = np.repeat(np.arange(SIDE, dtype=float)[None, :, None] * 10, SIDE, 0).repeat(3, 2)
    red = stair * [2.0, 0.5, 0.5]
    noisy = stair + np.random.default_rng(0).normal(0, 2, stair.shape)
    assert alike(np.array([np.full_like(stair, 7), stair, red, stair[:, ::-1], noisy])) == [(1, 4)]
    assert alike(np.array([np.full_like(stair, 7), np.full_like(stair, 7), np.full_like(stair, 8)])) == [(0, 1)]
    halves = np.repeat(np.where(np.arange(SIDE) < SIDE // 2, 50.0, 180.0)[None, :, None], SIDE, 0).repeat(3, 2)
    # gone in the mean of four places: as on pages of like layout
    board = (np.indices((SIDE, SIDE)).sum(0) % 2 * 2 - 1)[:, :, None] * 8
    assert alike(np.array([halves, halves + board, halves - board])) == []
    assert alike(np.zeros((0, SIDE, SIDE, 3))) == []


def test_copies_of_every_kind_are_one_picture(tmp_path):
    for n in range(12):
        scene(n).save(tmp_path / f"{n}.png")
    copies = {
        "bytes.png": lambda path: shutil.copy(tmp_path / "0.png", path),
        "again.jpg": lambda path: scene(0).save(path, quality=60),
        "small.jpg": lambda path: scene(0).resize((110, 73)).save(path),
        "big.webp": lambda path: scene(0).resize((900, 600)).save(path),
        "a.gif": lambda path: scene(0).save(path),
    }
    for name, make in copies.items():
        make(tmp_path / name)
    assert groups(musti(tmp_path, [*(f"{n}.png" for n in range(12)), *copies])) == [["0.png", *copies]]


@pytest.mark.parametrize("size", [(60, 40), (900, 700)])
def test_pictures_of_little_contrast_are_not_all_one(tmp_path, size):
    """The means of noise differ the less the more of it there is."""
    rng = np.random.default_rng(0)
    for n in range(6):
        Image.fromarray(rng.integers(0, 255, (*size, 3), dtype=np.uint8)).save(tmp_path / f"{n}.png")
    assert groups(musti(tmp_path, [f"{n}.png" for n in range(6)])) == []


@pytest.mark.parametrize(
    "address, other",
    [
        ("http://museum.example/a.jpg", "https://www.museum.example:443/a.jpg#top"),
        ("https://a.org/%C3%BC%20b.jpg", "https://A.org/ü b.jpg"),
        ("https://a.org/iiif/8/full/!588,600/0/default.jpg", "https://a.org/iiif/8/full/max/0/native.png"),
        (
            "https://upload.example/commons/thumb/a/ab/Rose.jpg/400px-Rose.jpg",
            "https://upload.example/commons/a/ab/Rose.jpg",
        ),
        ("https://images.example/rkd/thumb/650x650/ca9b.jpg", "https://images.example/rkd/thumb/300x300/ca9b.jpg"),
        ("https://a.org/1/still-life-2503--thumb-xl.jpg", "https://a.org/1/still-life-2503--thumb-lg.jpg"),
        ("https://a.org/p?id=7&width=300", "https://a.org/p?width=900&id=7"),
    ],
)
def test_addresses_of_one_picture(address, other):
    assert address_key(address) == address_key(other) != address_key(address.replace("a", "b", 1).replace("/", "/x", 4))


def test_addresses_of_two_pictures():
    different = [
        "http://a.org/1.jpg",
        "http://a.org/2.jpg",
        "http://b.org/1.jpg",
        "http://a.org/1.jpg?id=1",
        "http://a.org/1.jpg?id=2",
        "http://a.org:8080/1.jpg",
        "http://a.org/iiif/8/full/200,/0/default.jpg",
        "http://a.org/iiif/9/full/200,/0/default.jpg",
        "http://a.org/iiif/8/0,0,9,9/200,/0/default.jpg",
        "images/a.png",
        "images/b.png",
    ]
    assert len({address_key(a) for a in different}) == len(different)


def test_copies_fall_on_one_side_of_a_split(tmp_path):
    names = []
    for n in range(40):
        names.append(f"{n}.{'jpg' if n % 2 else 'png'}")
        scene(n // 2).resize((200, 133) if n % 2 else (300, 200)).save(tmp_path / names[-1])
    pairs = usable(*read_pairs(musti(tmp_path, names)), loud=False)
    for options in ({"leave_out": None, "whole": False}, {"leave_out": None, "whole": True}):
        parts, _ = divide(pairs, options | {"folds": 5, "fold": 0, "split_seed": 0})
        numbers = {part: [pairs.index(p) for p in chosen] for part, chosen in parts.items()}
        assert leaks(pairs, numbers) == 0
        assert not {int(p.id) // 2 for p in parts["train"]} & {int(p.id) // 2 for p in parts["test"] + parts["dev"]}


def test_the_command_for_splits_tells_of_copies_and_of_what_cannot_be_used(tmp_path, capsys):
    for n in range(9):
        scene(n % 8).save(tmp_path / f"{n}.png")
    (tmp_path / "5.png").write_bytes(b"")
    file = musti(tmp_path, [*(f"{n}.png" for n in range(9)), "http://a.org/1.jpg", "https://a.org/1.jpg"])
    assert main([str(file), str(tmp_path / "split.json"), "--folds", "3"]) == 0
    said, folds = capsys.readouterr().out, json.loads((tmp_path / "split.json").read_text())["folds"]
    assert (
        "4 files or addresses show only 2 different pictures (0.png = 8.png, http://a.org/1.jpg = https://a.org/1.jpg)"
        in said
    )
    assert (
        folds["0"] == folds["8"]
        and folds["9"] == folds["10"]
        and "1 pictures, of 1 pairs, cannot be used" in said
        and "5.png (The picture file is empty)" in said
    )


def test_a_pair_knows_its_folder(tmp_path):
    musti_file.make(tmp_path / "m")
    pairs = read_pairs(tmp_path / "m" / "pairs.json")[0]
    assert all(p.path.is_file() for p in pairs) and pairs[0].picture == ""
    assert MustiPair("1", str(tmp_path / "x.png"), "en", "t", folder=Path("there")).path == tmp_path / "x.png"


def test_what_cannot_be_used_is_named_and_left_out(tmp_path, capsys):
    (tmp_path / "m").mkdir()
    folder = tmp_path / "m"
    for n in range(12):
        scene(n).save(folder / f"{n}.png")
    whole = io.BytesIO()
    scene(3).save(whole, "PNG")
    (folder / "3.png").write_bytes(whole.getvalue()[: len(whole.getvalue()) // 2])
    (folder / "4.png").write_bytes(b"")
    (folder / "5.png").write_text("<html>")
    (folder / "6.png").unlink()
    (folder / "6.png").mkdir()
    (folder / "7.png").unlink()
    (folder / "8.png").unlink()
    (folder / "8.png").symlink_to(folder / "nowhere.png")
    images = [f"{n}.png" for n in range(12)] + ["../outside.png", "a\0b.png", "x" * 300 + ".png", "0.png"]
    kept = usable(*read_pairs(musti(folder, images)))
    assert [p.image for p in kept] == ["0.png", "1.png", "2.png", "9.png", "10.png", "11.png", "0.png"]
    said = capsys.readouterr().out
    assert (
        "9 pictures, of 9 pairs, cannot be used" in said
        and "3.png (The picture is damaged or cut off), 4.png (" in said
        and "and 4 more" in said
    )
    assert len(said.strip().splitlines()) == 1
    with pytest.raises(
        InputError, match=r"such as 7.png \(There is no picture file '7.png'\) and 1 more; run training.prepare first"
    ):
        usable(*read_pairs(musti(folder, ["7.png", "8.png"])), loud=False)
