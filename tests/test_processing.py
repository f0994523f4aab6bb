"""Odd pictures and passages."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from musti_model import InputError, MustiProcessor
from musti_model.processing import clean_passage, open_image
from tests.conftest import TEXTS, tiny_config


def save(image: Image.Image, path, **kwargs):
    image.save(path, **kwargs)
    return path


def test_exif_rotation(tmp_path):
    picture = Image.new("RGB", (40, 20), "red")
    picture.paste("blue", (0, 0, 20, 20))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees to see it upright
    opened = open_image(save(picture, tmp_path / "turned.jpg", exif=exif, quality=95))
    assert opened.size == (20, 40)
    assert opened.getpixel((10, 2))[2] > 200 and opened.getpixel((10, 38))[0] > 200


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_lies_over_white(tmp_path, mode):
    picture = Image.new(mode, (4, 4), (0,) * len(mode))
    assert open_image(save(picture, tmp_path / "a.png")).getpixel((1, 1)) == (255, 255, 255)


def test_palette_with_transparency(tmp_path):
    picture = Image.new("P", (4, 4), 0)
    picture.putpalette([255, 0, 0, 0, 255, 0] + [0] * 762)
    picture.putpixel((1, 1), 1)
    opened = open_image(save(picture, tmp_path / "p.png", transparency=0))
    assert opened.getpixel((0, 0)) == (255, 255, 255) and opened.getpixel((1, 1)) == (0, 255, 0)


def test_cmyk_and_grey(tmp_path):
    assert (
        open_image(save(Image.new("CMYK", (4, 4), (0, 255, 255, 0)), tmp_path / "c.jpg", quality=95)).getpixel((1, 1))[
            0
        ]
        > 200
    )
    assert open_image(save(Image.new("L", (4, 4), 77), tmp_path / "g.png")).getpixel((1, 1)) == (77, 77, 77)


def test_sixteen_bits_are_scaled_not_clipped(tmp_path):
    values = np.array([[0, 32768, 65535]], dtype=np.uint16)
    opened = open_image(save(Image.fromarray(values), tmp_path / "i.png"))
    assert [opened.getpixel((x, 0))[0] for x in range(3)] == [0, 127, 255]


def test_first_frame(tmp_path):
    frames = [Image.new("RGB", (4, 4), c) for c in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert open_image(tmp_path / "a.gif").getpixel((0, 0)) == (255, 0, 0)


def bomb(path):
    """A PNG header that promises 60,000 x 60,000 pixels."""
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 10) + b"IDAT" + bytes(14))
    return path


def bad_files(tmp_path):
    save(Image.effect_noise((200, 200), 50), tmp_path / "whole.jpg")
    whole = (tmp_path / "whole.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "draw.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    return {
        "cut.jpg": "damaged",
        "empty.png": "empty",
        "text.png": "not a picture",
        "draw.svg": "not a picture",
        "nothing.png": "no picture file",
        ".": "no picture file",
        bomb(tmp_path / "bomb.png").name: "too large",
    }


def test_bad_files_end_in_one_sentence(tmp_path):
    for name, words in bad_files(tmp_path).items():
        with pytest.raises(InputError, match=words) as error:
            open_image(tmp_path / name)
        assert str(tmp_path) not in str(error.value) and "\n" not in str(error.value)


def test_pixel_limit_holds_for_open_pictures():
    with pytest.raises(InputError, match="50 megapixels"):
        open_image(Image.new("1", (10_000, 5_001)))


@pytest.mark.parametrize(
    ("text", "words"),
    [("", "empty"), (" \n\t", "empty"), ("?! 123", "no words"), (None, "must be text"), ("a" * 1_000_001, "1000001")],
)
def test_bad_passages(text, words):
    with pytest.raises(InputError, match=words):
        clean_passage(text)


def test_passages_are_normalised():
    assert clean_passage(" cafe\u0301\x00 noir ") == "café  noir"


@pytest.fixture
def processor(tokenizer):
    return MustiProcessor(tiny_config(), tokenizer)


@pytest.mark.parametrize("text", TEXTS)
def test_words_are_whole_in_five_languages(processor, text):
    batch = processor.passages([text])
    words = batch.words[0]
    assert all(batch.texts[0][w.start : w.end] == w.text for w in words)
    pieces = [p for w in words for p in w.pieces]
    count = int(batch.attention_mask[0].sum())
    assert sorted(set(pieces)) == list(range(1, count - 1))  # every piece but [CLS] and [SEP]
    assert len(pieces) == len(set(pieces))


def test_long_s_is_read_as_s(processor):
    a, b = processor.passages(["roſes", "roses"]).input_ids
    assert a.tolist() == b.tolist()


def test_cut_passages_say_so(processor):
    batch = processor.passages(["roses " * 100 + "end", "roses"])
    assert batch.input_ids.shape == (2, 32)
    read = len(batch.words[0])
    assert f"the last {101 - read} of its 101 words" in batch.notices[0][0] and "“roses”" in batch.notices[0][0]
    assert batch.notices[1] == []
    assert batch.rests == [batch.texts[0][batch.words[0][-1].end :], ""] and batch.rests[0].endswith("roses end")


def test_padding_modes(tokenizer):
    assert MustiProcessor(tiny_config(), tokenizer).passages(["roses"]).input_ids.shape[1] < 32
    assert MustiProcessor(tiny_config(padding="carry"), tokenizer).passages(["roses"]).input_ids.shape == (1, 32)


def test_pixels_are_normalised(processor):
    pixels = processor.images([Image.new("RGB", (90, 30), (255, 0, 255))])
    assert pixels["vit"].shape == (1, 3, 40, 40) and pixels["resnet"].shape == (1, 3, 48, 48)
    assert pixels["vit"][0, 0].min() == 1 and pixels["vit"][0, 1].max() == -1
    # each branch by its own means and deviations
    for channel, value in enumerate(((1 - 0.5) / 0.2, (0 - 0.45) / 0.25, (1 - 0.4) / 0.3)):
        assert np.allclose(pixels["resnet"][0, channel], value, atol=1e-5)


def test_a_dark_sixteen_bit_picture_stays_dark(tmp_path):
    values = np.full((2, 2), 200, dtype=np.uint16)  # 200 of 65,535
    assert open_image(save(Image.fromarray(values), tmp_path / "dark.png")).getpixel((0, 0)) == (0, 0, 0)


def test_opening_twice_gives_the_first_frame_again(tmp_path):
    frames = [Image.new("RGB", (4, 4), c) for c in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    with Image.open(tmp_path / "a.gif") as animation:
        animation.seek(1)
        assert open_image(animation).getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize("padding", ["carry", "mask"])
def test_one_word_too_long_for_the_grid_is_not_cut_in_silence(tokenizer, padding):
    batch = MustiProcessor(tiny_config(text_length=4, padding=padding), tokenizer).passages(["caffèroseshundegarten"])
    assert batch.words[0] == [] and batch.rests == batch.texts and "longer than the model reads" in batch.notices[0][0]


def test_punctuation_is_read_but_not_counted(processor):
    assert [w.text for w in processor.passages(["« L’été, c'est-à-dire 1650 ! »"]).words[0]] == [
        "«",
        "L’été",
        ",",
        "c'est-à-dire",
        "1650",
        "!",
        "»",
    ]
    cut = processor.passages(["roses " + "! " * 60 + "end"])
    assert "the last 1 of its 2 words" in cut.notices[0][0]


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("a can\u00addle", "a candle"),
        ("a can\u200bdle", "a candle"),
        ("\ufeffa can-\ndle", "a candle"),
        ("a can¬\r\n dle", "a candle"),
        ("Saint-\nMalo", "Saint-\nMalo"),
        ("a candle -\nand wax", "a candle -\nand wax"),
        ("one\r\ntwo\tthree", "one\ntwo three"),
    ],
)
def test_broken_words_are_joined_and_lines_kept(text, read):
    assert clean_passage(text) == read


def test_a_very_long_passage_is_cut_and_counted(processor):
    batch = processor.passages(["roses " * 10_000])
    assert batch.input_ids.shape == (1, 32)
    assert f"the last {10_000 - len(batch.words[0])} of its 10000 words" in batch.notices[0][0]


def test_what_is_no_picture_is_said(tmp_path):
    for source in (None, b"x", np.zeros((2, 2, 3))):
        with pytest.raises(InputError, match="a file name or a PIL image"):
            open_image(source)
    with pytest.raises(InputError, match="no picture file"):
        open_image("x" * 5000)


def test_pictures_are_taken_one_at_a_time(processor):
    taken = []

    def pictures():
        for colour in ("red", "blue"):
            taken.append(colour)
            yield Image.new("RGB", (8, 8), colour)

    assert processor.images(pictures())["vit"].shape[0] == 2 and taken == ["red", "blue"]


def test_printers_ligatures_are_spelled_out():
    """OCR leaves them in; the tokenizer does not know them."""
    assert (
        clean_passage("The \ufb01sh and the \ufb02owers, a di\ufb03cult a\ufb00air")
        == "The fish and the flowers, a difficult affair"
    )


def test_the_folder_of_a_processor_is_made_where_it_is_missing(tokenizer, tmp_path):
    MustiProcessor(tiny_config(), tokenizer).save_pretrained(tmp_path / "new" / "weights")
    assert (tmp_path / "new" / "weights" / "processor.json").is_file()
