"""The starter's pictures: stored, varied, put together in collages, and pictures of nothing."""

import zipfile
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from musti_model.config import ImageBranchConfig
from training.starter.augment import box_places, branch_input, collages, nothing, plain_view, random_view
from training.starter.pictures import STORED_SIZE, load_pictures, split_of
from training.starter.typeset import text_pages

TEXTS = ["It was the best of times, it was the worst of times, it was the age of wisdom.", "Call me Ishmael."]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def png(colour: tuple[int, int, int]) -> bytes:
    file = BytesIO()
    Image.new("RGB", (40, 30), colour).save(file, "PNG")
    return file.getvalue()


def zipped(folder, name: str, pictures: dict[str, tuple[int, int, int]]):
    (folder / "images").mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / "images" / f"{name}.zip", "w") as archive:
        for member, colour in pictures.items():
            archive.writestr(member, png(colour))


def test_each_picture_is_stored_under_its_own_name(tmp_path):
    """Picture i of cat is coloured (i, 0, 0), of dog (0, i, 0); one of dev is the same again as one of train, and is
    left out."""
    colours = {"cat": lambda i: (i, 0, 0), "dog": lambda i: (0, i, 0)}
    members = {name: {f"drawn/{i}.png": colour(i + 1) for i in range(90)} for name, colour in colours.items()}
    held = next(m for m in members["cat"] if split_of(f"cat/{m}") == "dev")
    members["cat"][held] = members["dog"][next(m for m in members["dog"] if split_of(f"dog/{m}") == "train")]
    for name, pictures in members.items():
        zipped(tmp_path, name, pictures)
    sets = load_pictures(tmp_path, tmp_path / "work")
    assert sum(len(p) for p in sets.values()) == 179 and f"cat/{held}" not in sets["dev"].names
    for split, pictures in sets.items():
        assert pictures.pixels.shape == (len(pictures), STORED_SIZE, STORED_SIZE, 3)
        for pixels, label, source, name in zip(
            pictures.pixels, pictures.labels, pictures.sources, pictures.names, strict=True
        ):
            owner, member = name.split("/", 1)
            assert split_of(name) == split and source == "drawn" and pictures.objects[label] == owner
            assert (pixels == members[owner][member]).all()
    again = load_pictures(tmp_path, tmp_path / "work")
    assert (again["test"].names == sets["test"].names).all()


def test_many_pictures_are_decoded_by_several_processes(tmp_path, monkeypatch):
    from training.starter import pictures as module

    monkeypatch.setattr(module, "CHUNK", 4)
    monkeypatch.setattr(module.os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    zipped(tmp_path, "cat", {f"{i}.png": (i, i, i) for i in range(80)})
    for found in load_pictures(tmp_path, tmp_path / "work").values():
        assert [int(p[0, 0, 0]) for p in found.pixels] == [int(n.split("/")[1].split(".")[0]) for n in found.names]


def test_views_are_of_the_right_kind_and_repeat_with_the_seed():
    pixels = torch.randint(0, 256, (12, 64, 64, 3), generator=seeded(), dtype=torch.uint8)
    x = random_view(pixels, 32, seeded(1))
    assert x.shape == (12, 3, 32, 32) and x.dtype == torch.float32 and x.min() >= 0 and x.max() <= 1
    assert torch.equal(x, random_view(pixels, 32, seeded(1))) and not torch.equal(x, random_view(pixels, 32, seeded(2)))


def test_a_quarter_of_the_views_has_lost_its_colours():
    """A picture, half red, half blue: in a grey or sepia view both differ by their light alone, along one line of
    colours."""
    pixels = torch.zeros(2000, 8, 8, 3, dtype=torch.uint8)
    pixels[:, :, :4, 0], pixels[:, :, 4:, 2] = 160, 90
    x = random_view(pixels, 8, seeded(), 0.0)
    ratio = x / x[:, :1].clamp(min=1e-3)
    one_line = ((ratio.amax((2, 3)) - ratio.amin((2, 3))) < 0.02).all(1)
    assert one_line.float().mean() == pytest.approx(0.25, abs=0.04)


def test_many_views_are_coarse():
    """Noise of single pixels loses its contrast where the picture went through a smaller size."""
    pixels = torch.randint(0, 2, (400, 32, 32, 1), generator=seeded(), dtype=torch.uint8).expand(-1, -1, -1, 3) * 255
    assert plain_view(pixels, 32).std((1, 2, 3)).min() > 0.4
    from training.starter.augment import _coarsened

    spread = _coarsened(plain_view(pixels, 32), seeded(), 0.6).std((1, 2, 3))
    assert (spread < 0.35).float().mean() == pytest.approx(0.6, abs=0.07) and len(
        {round(float(s), 1) for s in spread}
    ) > 2


def test_places_in_boxes_by_hand():
    """A grid of 4 x 4; a quarter, the whole with a paste of its middle, and nothing."""
    boxes = torch.zeros(3, 4, 4)
    boxes[0, 0], boxes[0, 1] = torch.tensor([0, 0, 0.5, 0.5]), torch.tensor([0.5, 0.5, 1, 1])
    boxes[1, 0], boxes[1, 1] = torch.tensor([0, 0, 1, 1.0]), torch.tensor([0.25, 0.25, 0.75, 0.75])
    places = box_places(boxes, (4, 4))
    assert places.shape == (3, 4, 16) and places.dtype == torch.bool
    assert places[0, 0].nonzero().flatten().tolist() == [0, 1, 4, 5] and places[0, 1].nonzero().flatten().tolist() == [
        10,
        11,
        14,
        15,
    ]
    assert places[1, 1].nonzero().flatten().tolist() == [5, 6, 9, 10]
    assert places[1, 0].nonzero().flatten().tolist() == [0, 1, 2, 3, 4, 7, 8, 11, 12, 13, 14, 15]
    assert not places[2].any() and not places[:, 2:].any()
    # 3 columns: 1/6, 1/2
    assert box_places(torch.tensor([[[0, 0, 1, 0.5]]]), (2, 3)).tolist() == [[[True, False, False, True, False, False]]]


def test_collages_show_what_they_say_where_they_say():
    """Picture k is all of grey k/64 and of object k: each item's colour must stand in its places, and nowhere else."""
    n = 64
    grey = (torch.arange(n) + 1) / 80
    made = collages(grey.view(n, 1, 1, 1).expand(n, 3, 48, 48), torch.arange(n), seeded())
    assert made.pixels.shape == (n, 3, 48, 48) and made.objects.shape == (n, 4) and made.boxes.shape == (n, 4, 4)
    present = made.objects >= 0
    assert torch.equal(present, made.boxes[..., 2] > made.boxes[..., 0])
    places = box_places(made.boxes, (48, 48))
    assert not places[~present].any() and (places[present].sum(-1) > 200).all()
    assert (places.sum(1) <= 1).all()
    flat = made.pixels.mean(1).flatten(1)
    for row in range(n):
        for item in range(4):
            if present[row, item]:
                assert torch.allclose(flat[row][places[row, item]], grey[made.objects[row, item]], atol=1e-4)
    count = present.sum(1)
    assert set(count.tolist()) == {1, 2, 4} and 20 <= int((count == 4).sum()) <= 44
    assert torch.equal(made.objects[:, 0].sort().values, torch.arange(n))  # each view once first
    pasted = (made.boxes[:, 0] == torch.tensor([0.0, 0, 1, 1])).all(1) & (count == 2)
    assert pasted.any() and (made.boxes[pasted, 1, 2] - made.boxes[pasted, 1, 0] >= 0.349).all()


def test_collages_prefer_different_objects():
    x = torch.rand(24, 3, 16, 16, generator=seeded())
    objects = collages(x, torch.arange(24) % 5, seeded(3)).objects
    for row in objects.tolist():
        named = [o for o in row if o >= 0]
        assert len(set(named)) == len(named)
    # where there are no others, the same
    assert (collages(x, torch.zeros(24, dtype=torch.long), seeded(3)).objects <= 0).all()


def test_pictures_of_nothing_are_of_many_kinds():
    pages = torch.from_numpy(text_pages(TEXTS, 12, 48, seed=0))
    x = nothing(220, 48, seeded(), pages)
    assert x.shape == (220, 3, 48, 48) and torch.isfinite(x).all() and x.min() >= 0 and x.max() <= 1
    spread, colour = x.std((1, 2, 3)), (x.amax(1) - x.amin(1)).mean((1, 2))
    assert (
        (spread < 0.01).sum() > 10
        and (spread > 0.2).sum() > 20
        and (colour < 0.01).sum() > 20
        and (colour > 0.3).sum() > 20
    )
    assert (x.mean((1, 2, 3)) > 0.97).sum() > 5 and (x.mean((1, 2, 3)) < 0.03).sum() > 1
    assert len({tuple(row) for row in (x[:, :, ::7, ::7].flatten(1) * 20).round().tolist()}) > 190
    assert [len(nothing(n, 16, seeded())) for n in (0, 1, 5)] == [0, 1, 5]


def test_pages_of_text():
    pages = text_pages(TEXTS, 20, 64, seed=1)
    assert (
        pages.shape == (20, 64, 64, 3)
        and pages.dtype == np.uint8
        and (pages == text_pages(TEXTS, 20, 64, seed=1)).all()
    )
    assert (pages.reshape(20, -1).std(1) > 5).all() and len({tuple(p[0, 0]) for p in pages}) > 3
    with pytest.raises(ValueError, match="at least one passage"):
        text_pages([], 1, 64, seed=0)


def test_pictures_come_to_a_branch_as_the_processor_brings_them():
    """By the branch's own size, mean and deviation, whatever size they are kept in."""
    branch = ImageBranchConfig("cnn", "resnet18", image_size=24, mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.5))
    x = torch.rand(2, 3, 24, 24, generator=seeded())
    by_hand = torch.stack(
        [(x[:, i] - m) / s for i, (m, s) in enumerate(zip(branch.mean, branch.std, strict=True))], dim=1
    )
    assert torch.allclose(branch_input(x, branch), by_hand, atol=1e-6)
    flat = torch.tensor([0.1, 0.7, 0.9]).view(1, 3, 1, 1).expand(1, 3, 40, 40)
    small = branch_input(flat, branch)
    assert small.shape == (1, 3, 24, 24) and torch.allclose(
        small[0, :, 0, 0], torch.tensor([-2.0, 1.2, 1.2]), atol=1e-5
    )
