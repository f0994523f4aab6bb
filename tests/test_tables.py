"""Tables of records as spreadsheets of many countries write them; and results that none of them takes for a formula."""

import csv
import io
import unicodedata

import pytest

from musti_model import InputError
from musti_model.records import MustiPair, parse_records
from page.answers import records_of
from page.tables import safe_cell, write_table


@pytest.fixture
def read(tmp_path):
    """id: text of each row, or what is wrong with it."""

    def rows(text: str, encoding: str = "utf-8", name: str = "pairs.csv") -> list[str]:
        (tmp_path / name).write_bytes(text.encode(encoding))
        return [
            f"{i.id}: {i.text}" if isinstance(i, MustiPair) else str(i)
            for i in parse_records(records_of(tmp_path / name))
        ]

    return rows


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sep=;\r\nid;image;text\r\n1;a.jpg;A rose\r\n", "A rose"),
        ('"sep=\t"\nid\timage\ttext\n1\ta.jpg\tA rose\n', "A rose"),
        ('id, image, "text"\n1, a.jpg, "A rose, red"\n', "A rose, red"),
        ("ID,Image,TEXT\n1,a.jpg,A rose\n", "A rose"),
        ("\n ,,\nid,image,text\n1,a.jpg,A rose\n", "A rose"),
        ("id;image;text;seen, read, and noted, at last\n1;a.jpg;A rose;x\n", "A rose"),
        ('\ufeff"id";"image";"text"\n1;a.jpg;A rose, red\n', "A rose, red"),
        ("id\timage\ttext\n1\ta.jpg\tred, white; green\n", "red, white; green"),
        ("id|image|text\n1|a.jpg|A rose\n", "A rose"),
        ("id,\xa0image\u200b,text\r1,a.jpg,A rose\r", "A rose"),
        ("id,image,text,,\n1,a.jpg,A rose,,,,\n,,,\n", "A rose"),
        ('id,image,text,"two\nlines"\n1,a.jpg,A rose,x\n', "A rose"),
        ('id,image,text\n1,a.jpg,"' + "rose " * 40_000 + '"\n', "rose " * 40_000),
    ],
)
def test_headers_of_spreadsheets(read, text, expected):
    for encoding in ("utf-8", "utf-16"):
        assert read(text, encoding) == [f"1: {expected}"]
    assert read(text, name="pairs.tsv") == read(text, "utf-16", "pairs.txt") == [f"1: {expected}"]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("1,a.jpg,The herring stank, but the rose smelled sweet", "its language is 'but the rose smelled sweet'"),
        ("1,a.jpg,The rose, sweet", "its language is 'sweet'"),
        ("1,a.jpg,The herring stank, but the rose smelled sweet,en", "more cells"),
        ('1,a.jpg,"Rose" she said,en', "quotation marks in lines 2 to 2"),
        ('1,a.jpg,"The \\"rose\\"",en', "quotation marks"),
        ('1,a.jpg,"open\nand "on,en', "quotation marks in lines 2 to 3"),
        ("1,a.jpg", "no text"),
        (",a.jpg,A rose,en", "no id"),
    ],
)
def test_a_row_that_is_no_record_is_named_and_stops_nothing(read, row, words):
    first, second = read(f"id,image,text,language\n{row}\n2,b.jpg,A dog,en\n")
    assert words in first and second == "2: A dog"


@pytest.mark.parametrize(
    "row", ["1,a.jpg,The rose,latin", "1, a.jpg, The rose, latin", '1,a.jpg,"The rose, sweet",old high german']
)
def test_other_languages_are_no_rest_of_a_text(read, row):
    assert read(f"id,image,text,language\n{row}\n")[0].startswith("1: The rose")


def test_cells_under_no_name(read):
    assert read(",id,image,text\n0,7,a.jpg,A rose\n") == ["7: A rose"]  # as programs number rows
    assert "more cells" in read("text,,image\nThe rose, sweet,a.jpg\n")[0]
    assert "more cells" in read("id,image,text,\n1,a.jpg,The herring stank, but the rose\n")[0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("id,image,text,Text\n1,a,The rose,\n", "two columns 'text'"),
        ("id,image,text,note,note\n", "two columns 'note'"),
        ("picture,text\n", "no column image"),
        ("", "no line of names"),
        ("\n\n", "no line of names"),
        ('[{"id": 1}]', "no column image, text"),
        ('id,image,text\n1,a,"The rose\n2,b,A dog\n', "opens in line 2 or after it is never closed"),
        ('id,image,"text" x\n1,a,b\n', "quotation marks in the first line"),
    ],
)
def test_tables_that_are_none(read, text, words):
    with pytest.raises(InputError, match=words):
        read(text)


@pytest.mark.parametrize("data", ["id,image,text\n1,a,café\n".encode("cp1252"), b"\xff\xfea", b"\xfe\xff\xd8\x00"])
def test_texts_of_other_encodings(tmp_path, data):
    (tmp_path / "a.csv").write_bytes(data)
    with pytest.raises(InputError, match="not UTF-8"):
        list(records_of(tmp_path / "a.csv"))


@pytest.mark.parametrize("data", [b"PK\3\4xl/worksheets", b"\xd0\xcf\x11\xe0Workbook"])
def test_a_spreadsheet_s_own_file(tmp_path, data):
    (tmp_path / "a.csv").write_bytes(data)
    with pytest.raises(InputError, match="spreadsheet's own file"):
        list(records_of(tmp_path / "a.csv"))


def test_files_too_large_or_gone(tmp_path):
    with (tmp_path / "a.csv").open("wb") as file:
        file.truncate(50_000_001)
    for name, words in (("a.csv", "limit is 50 MB"), ("b.csv", "choose it again"), ("b.json", "choose it again")):
        with pytest.raises(InputError, match=words):
            list(records_of(tmp_path / name))


FORMULAS = [
    "=1",
    "-1",
    "+1",
    "@x",
    "\n=1",
    "\r=1",
    "\t=1",
    " =1",
    "\ufeff=1",
    "\v=1",
    "＝1+1",
    "\u3000＋1",
    "\u200b=1",
    "\xa0=1",
    "\xad=1",
    "\x00=1",
    '"=1',
    "A rose;=1+1;",
    "a; =1",
    "a\n-1",
    "a\t@x",
    "a|=1",
    'a";"=1',
    "a\u2028+1",
    "a\x85=1",
    ";=1",
    "'=1",
]


@pytest.mark.parametrize("text", FORMULAS)
def test_no_cell_is_a_formula_however_cells_are_parted(tmp_path, text):
    write_table(tmp_path / "t.csv", ["id", "text", "end"], [{"id": "x", "text": text, "end": "y"}])
    data = (tmp_path / "t.csv").read_bytes().decode("utf-8-sig")
    for delimiter in ",;\t|":
        for row in csv.reader(io.StringIO(data, newline=""), delimiter=delimiter):
            for cell in row:
                visible = "".join(
                    c for c in unicodedata.normalize("NFKC", cell) if unicodedata.category(c) not in ("Cf", "Cc")
                )
                assert visible.strip().lstrip('" ')[:1] not in ("=", "+", "-", "@"), cell


@pytest.mark.parametrize(
    "text", ["A rose - red", "x=1, y", "He said; and then", "a-b", "rose; lily\nand; thyme", "", "e@mail", 0.5]
)
def test_other_cells_stay_as_they_are(text):
    assert safe_cell(text) == text


@pytest.mark.timeout(20)
def test_long_runs_of_signs_take_no_time():
    for text in ("\n" * 1_000_000, " ;" * 500_000 + "=", "=;" * 300_000):
        safe_cell(text)
