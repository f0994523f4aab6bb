"""The MUSTI file format: forms of files and fields, bad records, streaming."""

import json
import time
import tracemalloc

import pytest

from musti_model.errors import InputError
from musti_model.records import (
    BadRecord,
    MustiPair,
    fingerprint,
    iter_records,
    language_tag,
    parse_record,
    parse_records,
    read_pairs,
)

RECORD = {
    "id": 7,
    "image": " https://example.org/a b.jpg ",
    "language": "en",
    "subtask1_label": "YES",
    "subtask2_labels": ["rose", "dog"],
    "text": "The roses smelled sweet.",
    "title": "Still life",
}


def record(**changes):
    return {k: v for k, v in (RECORD | changes).items() if v != "absent"}


def write(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def test_a_record_becomes_a_pair(tmp_path):
    pairs, bad = read_pairs(write(tmp_path / "a.json", {"pairs": [RECORD]}))
    assert pairs == [
        MustiPair(
            "7", "https://example.org/a b.jpg", "en", "The roses smelled sweet.", 1, ("rose", "dog"), "Still life"
        )
    ]
    assert pairs[0].record == RECORD and bad == []


def test_a_list_and_an_object_with_other_fields_are_read_alike(tmp_path):
    records = [record(id=i) for i in range(3)]
    forms = (records, {"pairs": records}, {"version": [1, {"pairs": []}], "pairs": records, "note": "end"})
    read = [read_pairs(write(tmp_path / f"{i}.json", form)) for i, form in enumerate(forms)]
    assert read[0] == read[1] == read[2] and [p.id for p in read[0][0]] == ["0", "1", "2"]
    marked = write(tmp_path / "bom.json", "\ufeff" + json.dumps(records))
    assert read_pairs(marked) == read[0]


@pytest.mark.parametrize(
    "label, expected",
    [("YES", 1), ("NO", 0), (" yes ", 1), ("no", 0), ("", None), (None, None), (float("nan"), None), ("absent", None)],
)
def test_labels(label, expected):
    assert parse_record(record(subtask1_label=label), 1).label == expected


@pytest.mark.parametrize("label", ["MAYBE", 1, True, ["YES"], "YES NO"])
def test_labels_that_are_none(label):
    item = parse_record(record(subtask1_label=label), 1)
    assert isinstance(item, BadRecord) and "neither YES nor NO" in item.reason


@pytest.mark.parametrize(
    "language, tag",
    [
        ("en", "en"),
        ("English", "en"),
        (" slovene ", "sl"),
        ("sl", "sl"),
        ("sl-SI", "sl"),
        ("de_AT", "de"),
        ("SLV", "sl"),
        ("Slovenščina", "sl"),
        ("Français", "fr"),
        ("", "und"),
        (None, "und"),
        ("Klingon", "klingon"),
        (3, "und"),
    ],
)
def test_languages(language, tag):
    assert language_tag(language) == tag


def test_the_slovenian_test_file_has_neither_labels_nor_objects(tmp_path):
    content = [
        {"id": "sl_1", "image": "x.jpg", "text": "Čebele.", "language": "slovene"},
        {"id": 2, "image": "y.jpg", "text": "Čaj."},
    ]
    pairs, bad = read_pairs(write(tmp_path / "sl.json", {"pairs": content}))
    assert [(p.id, p.language, p.label, p.objects, p.title) for p in pairs] == [
        ("sl_1", "sl", None, (), ""),
        ("2", "und", None, (), ""),
    ]
    assert bad == []


@pytest.mark.parametrize(
    "objects, expected",
    [
        (["a", " b "], ("a", "b")),
        (None, ()),
        ("a, b;c", ("a", "b", "c")),
        ("", ()),
        (["a", None, 3, ""], ("a",)),
        ({"a": 1}, ()),
    ],
)
def test_objects(objects, expected):
    assert parse_record(record(subtask2_labels=objects), 1).objects == expected


def test_ids_titles_and_images_are_bare():
    assert [parse_record(record(id=i), 1).id for i in (7, 7.0, " 7")] == ["7"] * 3
    assert parse_record(record(title="nan"), 1).title == "" and parse_record(record(title=None), 1).title == ""
    assert parse_record(record(image="\u200b\xa0 http://a/b.jpg\ufeff\n"), 1).image == "http://a/b.jpg"


def test_bad_records_are_named_and_stop_nothing(tmp_path):
    records = [
        "text",
        record(id="absent"),
        record(id=True),
        record(id=3, text=" \n"),
        record(id=4, text=None),
        record(id=5, image="  "),
        record(id=6, image=["x"]),
        record(id=8, subtask1_label="MAYBE"),
        record(id=9),
        record(id="9", text="other"),
        None,
    ]
    pairs, bad = read_pairs(write(tmp_path / "a.json", records))
    assert [p.id for p in pairs] == ["9"]
    assert [str(b) for b in bad] == [
        "record 1: it is not an object with fields",
        "record 2: it has no id",
        "record 3: it has no id",
        "id 3: it has no text",
        "id 4: it has no text",
        "id 5: it has no image",
        "id 6: it has no image",
        "id 8: its subtask1_label is 'MAYBE', neither YES nor NO",
        "id 9: its id was used before",
        "record 11: it is not an object with fields",
    ]
    assert [b.record for b in bad] == records[:8] + records[9:]


SMALL = """ {"note": -1.5e+3, "x": {"pairs": [0]}, "pairs" :
 [ {"id":1,"text":"a \\"b\\" \\\\ \\ud83d\\ude00 č","o":[true,null]} , 12, -1.25e-2,"s",false , null, [], {}, Infinity \
] , "end" : 7 } """


def test_a_chunk_may_end_anywhere(tmp_path):
    path = write(tmp_path / "a.json", SMALL)
    expected = json.loads(SMALL)["pairs"]
    for chunk in range(1, len(SMALL) + 2):
        assert list(iter_records(path, chunk)) == expected, chunk


def test_every_place_of_a_cut_is_tried(tmp_path):
    """One boundary at each place: white space ahead shifts the text against the chunks."""
    expected = json.loads(SMALL)["pairs"]
    for shift in range(len(SMALL) + 1):
        path = write(tmp_path / "a.json", " " * shift + SMALL)
        assert list(iter_records(path, len(SMALL))) == expected, shift


def test_a_text_of_megabytes(tmp_path):
    text = 'é\\"\n' * 1_000_000
    path = write(tmp_path / "a.json", [record(id=1), record(id=2, text=text), record(id=3)])
    pairs, bad = read_pairs(path)
    assert [p.id for p in pairs] == ["1", "2", "3"] and pairs[1].text == text and not bad
    started = time.monotonic()
    assert next(r for r in iter_records(path, 16) if r["id"] == 2)["text"] == text
    assert time.monotonic() - started < 10  # decoding it anew every 16 characters takes minutes


def test_a_large_file_is_not_held(tmp_path):
    path = write(tmp_path / "a.json", {"pairs": [record(id=i, text="word " * 2000) for i in range(1000)]})
    tracemalloc.start()
    count = sum(1 for _ in iter_records(path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 1000 and peak < path.stat().st_size / 5


@pytest.mark.parametrize(
    "content, words",
    [
        ("", "not JSON"),
        ("no json", "not JSON"),
        ('{"pairs": [{"id": 1}', "not JSON"),
        ('{"pairs": [{"id": 1} {"id": 2}]}', "not JSON"),
        ('[{"id": 1}][{"id": 2}]', "something follows the end at character 12"),
        ('{"pairs": []', "not JSON"),
        ("[1 2]", "not JSON"),
        ('{"records": []}', "no list of pairs"),
        ('{"pairs": {}}', "no list of pairs"),
        ("3", "no list of pairs"),
        ("{}", "no list of pairs"),
        ("[" * 100_000, "not JSON"),
        ('[{"a":' * 50_000, "not JSON"),
        ("{1: 2}", "not JSON"),
        ('["a', "not JSON"),
    ],
)
def test_files_that_are_none(tmp_path, content, words):
    with pytest.raises(InputError, match=words) as caught:
        read_pairs(write(tmp_path / "a.json", content))
    assert "\n" not in str(caught.value)


def test_other_forms_of_a_file(tmp_path):
    records = [record(id=i) for i in range(3)]
    expected = read_pairs(write(tmp_path / "a.json", records))
    assert read_pairs(write(tmp_path / "a.jsonl", "\n".join(map(json.dumps, records)))) == expected
    assert list(iter_records(write(tmp_path / "a.json", record()))) == [RECORD]
    for encoding in ("utf-16", "utf-16-le", "utf-16-be", "utf-32"):
        (tmp_path / "a.json").write_bytes(json.dumps({"pairs": records}).encode(encoding))
        assert read_pairs(tmp_path / "a.json") == expected, encoding


@pytest.mark.parametrize(
    ("odd", "words"),
    [
        ('{"id": 1, "image": "a", "text": "x", "more": ' + "[" * 101 + "]" * 101 + "}", "nested too deeply"),
        ("[" * 200_000 + "]" * 200_000, "nested too deeply"),
        ('{"a": "\\"]", "b":' * 20_000 + "1" + "}" * 20_000, "nested too deeply"),
        ('{"id": 1, "image": "a", "text": "The herring", "text": "x"}', "'text' is there twice"),
        ("1" * 5000, "not an object"),
        ('{"id": NaN, "image": "a", "text": "x"}', "no id"),
    ],
)
def test_an_odd_record_is_named_and_stops_nothing(tmp_path, odd, words):
    pairs, bad = read_pairs(
        write(tmp_path / "a.json", f"[{json.dumps(record(id=8))}, {odd}, {json.dumps(record(id=9))}]")
    )
    assert [p.id for p in pairs] == ["8", "9"] and len(bad) == 1 and words in bad[0].reason
    json.dumps(bad[0].record, ensure_ascii=False)


def test_values_that_no_file_holds():
    bottomless: list = []
    for _ in range(100_000):
        bottomless = [bottomless]
    records = [
        record(id=10**5000),
        record(id=2, subtask1_label=10**5000),
        record(id=3, subtask1_label=bottomless),
        b"x",
        record(id=4),
    ]
    items = list(parse_records(records))
    assert [isinstance(i, MustiPair) for i in items] == [False, False, False, False, True]


def test_one_field_with_one_value_twice(tmp_path):
    assert next(iter_records(write(tmp_path / "a.json", '[{"id": 1, "id": 1}]'))) == {"id": 1}


def test_a_record_without_bounds(tmp_path, monkeypatch):
    monkeypatch.setattr("musti_model.records.LONGEST", 1_000_000)
    with pytest.raises(InputError, match="too long at character 2"):
        list(iter_records(write(tmp_path / "a.json", '["' + "a" * 5_000_000)))


def test_a_mistake_is_found_without_reading_on(tmp_path):
    path = write(tmp_path / "a.json", '[{"id": 1}, {"id": x}, ' + " " * 3_000_000 + "]")
    tracemalloc.start()
    with pytest.raises(InputError, match="at character 20"):
        list(iter_records(path))
    assert tracemalloc.get_traced_memory()[1] < 1_500_000
    tracemalloc.stop()


def test_files_that_cannot_be_read(tmp_path):
    (tmp_path / "latin.json").write_bytes('[{"id": "é"}]'.encode("latin-1"))
    for path, words in (
        (tmp_path / "none.json", "check the name"),
        (tmp_path, "cannot be read"),
        (tmp_path / "latin.json", "not UTF-8"),
    ):
        with pytest.raises(InputError, match=words):
            read_pairs(path)


def test_fingerprint_knows_content_but_not_order():
    pairs = [parse_record(record(id=i), i) for i in (1, 2, 3)]
    assert fingerprint(pairs) == fingerprint(pairs[::-1]) and len(fingerprint(pairs)) == 16
    for change in ({"id": 9}, {"text": "x"}, {"image": "x"}, {"subtask1_label": "NO"}, {"subtask1_label": None}):
        assert fingerprint([parse_record(record(**{"id": 1} | change), 1), *pairs[1:]]) != fingerprint(pairs), change
    assert fingerprint(pairs[:2]) != fingerprint(pairs)
    assert len(fingerprint([parse_record(record(text="\ud800"), 1)])) == 16
