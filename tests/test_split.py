"""Splits without leaks, on hand-made files with repeats like MUSTI's."""

import json
import random
from collections import Counter
from dataclasses import replace
from itertools import chain

import pytest

from musti_model.errors import InputError
from musti_model.records import MustiPair, fingerprint
from training.data.folds import (
    components,
    cut_folds,
    folds,
    leaks,
    leave_language_out,
    notices,
    parts_of,
    passage_key,
    split,
    split_fingerprint,
)
from training.split import main


def pair(name, image, text, language="en", label=0) -> MustiPair:
    return MustiPair(str(name), image, language, text, label, record={"id": name, "image": image, "text": text})


def like_musti(n=600, chained=0) -> list[MustiPair]:
    """Each picture about four times, a quarter of the passages twice; the first ``chained`` pairs hang together. A
    quarter is YES."""
    rng = random.Random(1)
    pairs = []
    for i in range(n):
        language = ("en", "it", "de", "fr")[i % 4]
        image, text = f"http://a/{rng.randrange(n // 4)}.jpg", f"passage {i if rng.random() < 0.75 else i - 4}"
        if i < chained:
            image, text = f"http://big/{i // 2}.jpg", f"chain {(i + 1) // 2}"
        pairs.append(pair(i, image, text, language, int(rng.random() < 0.25)))
    return pairs


def test_components_by_hand():
    pairs = [
        pair(1, "a", "one"),
        pair(2, "b", "two"),
        pair(3, "a", "three"),  # the picture of 1
        pair(4, "c", "four"),
        pair(5, "d", " TWO\n"),  # the passage of 2, written otherwise
        pair(6, "c", "three"),  # ties 4 to 3, so to 1
        pair(7, "one", "b"),  # a picture named like a passage is no tie
    ]
    assert components(pairs) == [0, 1, 0, 0, 1, 0, 2]
    assert components([]) == []


def test_passages_are_compared_as_read():
    forms = ("Ein Café  an der\nStraße", "ein cafe\u0301 an der STRASSE ")
    assert passage_key(pair(1, "a", forms[0])) == passage_key(pair(2, "b", forms[1]))
    assert passage_key(pair(1, "a", "Čaj")) != passage_key(pair(1, "a", "Caj"))


def test_a_random_split_leaks_and_this_one_does_not():
    pairs = like_musti()
    order = list(range(len(pairs)))
    random.Random(0).shuffle(order)
    assert leaks(pairs, {"train": order[:360], "dev": order[360:480], "test": order[480:]}) > 400
    for fold in range(5):
        parts = split(pairs, 5, fold)
        assert leaks(pairs, parts) == 0
        assert sorted(parts["train"] + parts["dev"] + parts["test"]) == list(range(len(pairs)))


def test_leaks_by_hand():
    pairs = [pair(1, "a", "one"), pair(2, "a", "two"), pair(3, "b", "TWO"), pair(4, "c", "four"), pair(5, "c", "five")]
    assert leaks(pairs, {"train": [0, 3, 4], "test": [1, 2]}) == 2  # 1 and 2 by the picture
    assert leaks(pairs, {"train": [0, 1], "dev": [2], "test": [3, 4]}) == 2  # 2 and 3 by the passage
    assert leaks(pairs, {"train": [0, 1, 2], "test": [3, 4]}) == 0
    assert leaks(pairs, {"train": [0], "test": [2, 3], "left_out": [1, 4]}) == 0


def test_folds_are_whole_components_and_reproducible():
    pairs = like_musti()
    numbers = folds(pairs, 5, 3)
    assert len(set(zip(components(pairs), numbers))) == len(set(components(pairs)))
    assert numbers == folds(list(pairs), 5, 3) and numbers != folds(pairs, 5, 4)
    assert set(numbers) == set(range(5))


@pytest.mark.parametrize("divide", [folds, cut_folds])
def test_languages_and_labels_are_spread_evenly(divide):
    pairs = [replace(p, image=f"http://a/{i // 2}.jpg", text=f"passage {i}") for i, p in enumerate(like_musti())]
    numbers = divide(pairs, 5)
    for stratum, whole in Counter((p.language, p.label) for p in pairs).items():
        for fold in range(5):
            have = sum((p.language, p.label) == stratum and n == fold for p, n in zip(pairs, numbers))
            assert abs(have - whole / 5) <= 2, (stratum, fold)
    assert max(Counter(numbers).values()) - min(Counter(numbers).values()) <= 4


def test_a_component_too_big_for_a_fold_is_in_train_first_and_told():
    pairs = like_musti(600, chained=300)
    numbers = folds(pairs, 5)
    assert set(numbers[:300]) == {4}
    sizes = Counter(numbers)
    assert max(sizes[f] for f in range(4)) - min(sizes[f] for f in range(4)) <= 20
    assert set(range(300)) <= set(split(pairs, 5, 0)["train"])
    assert any(s.startswith("300 of 600 pairs hang together") and "in fold 4" in s for s in notices(pairs, numbers, 5))


def test_cutting_divides_it_and_leaves_out_few():
    pairs = like_musti(600, chained=300)
    numbers = cut_folds(pairs, 5)
    sizes = Counter(numbers)
    assert 0 < sizes[-1] < 90 and max(sizes[f] for f in range(5)) < 150
    for fold in range(5):
        parts = split(pairs, 5, fold, cut=True)
        assert leaks(pairs, parts) == 0 and len(parts["left_out"]) == sizes[-1]
    assert numbers == cut_folds(pairs, 5)
    assert notices(pairs, numbers, 5)[0] == f"{sizes[-1]} of 600 pairs would tie two folds and are left out."


def test_cutting_keeps_all_where_nothing_needs_a_cut():
    pairs = [pair(i, f"p{i // 3}", f"t{i}") for i in range(90)]
    numbers = cut_folds(pairs, 5)
    assert -1 not in numbers and "left_out" not in split(pairs, 5, 0, cut=True)


def test_parts():
    assert parts_of([0, 1, 2, 3, -1], 4, 3) == {"train": [1, 2], "dev": [0], "test": [3], "left_out": [4]}
    for k, fold, words in ((2, 0, "3 folds or more"), (3, 3, "choose 0 to 2"), (3, -1, "no fold -1")):
        with pytest.raises(InputError, match=words):
            parts_of([0, 1], k, fold)


def test_too_many_folds():
    pairs = [pair(1, "a", "one"), pair(2, "a", "two"), pair(3, "b", "three")]
    assert sorted(set(folds(pairs, 2))) == [0, 1]
    for divide in (folds, cut_folds):
        for k, words in ((3, "choose fewer folds"), (1, "choose 2 or more")):
            with pytest.raises(InputError, match=words):
                divide(pairs, k)


def test_no_fold_is_empty():
    pairs = [pair(i, "same", f"t{i}") for i in range(20)] + [pair("x", "x", "x"), pair("y", "y", "y", "it", 1)]
    assert set(folds(pairs, 3)) == {0, 1, 2}


def test_leaving_a_language_out():
    pairs = [
        pair(1, "a", "one", "en"),
        pair(2, "a", "uno", "it"),
        pair(3, "b", "zwei", "de"),
        pair(4, "c", "three", "en"),
        pair(5, "d", "UNO", "en"),
        pair(6, "e", "six", "en"),
        pair(7, "f", "seven", "fr"),
        pair(8, "c", "quatre", "fr"),
    ]
    parts = leave_language_out(pairs, "Italian", k=3)
    assert parts["test"] == [1] and parts["left_out"] == [0, 4]  # one by its picture, one by its passage
    assert sorted(parts["train"] + parts["dev"]) == [2, 3, 5, 6, 7] and parts["dev"] and leaks(pairs, parts) == 0
    with pytest.raises(InputError, match="No pair is in the language 'sl'; the file has de, en, fr, it"):
        leave_language_out(pairs, "sl")
    with pytest.raises(InputError, match="too few pairs"):
        leave_language_out(pairs[:2], "it")


def test_every_language_of_a_big_file_can_be_left_out():
    pairs = like_musti()
    for language in ("en", "it", "de", "fr"):
        parts = leave_language_out(pairs, language)
        assert leaks(pairs, parts) == 0 and sorted(chain(*parts.values())) == list(range(len(pairs)))
        assert {pairs[i].language for i in parts["test"]} == {language}
        assert language not in {pairs[i].language for i in parts["train"] + parts["dev"]}
        assert len(parts["dev"]) < len(parts["train"])


def test_dev_is_no_smaller_for_a_big_component():
    pairs = [replace(p, language="fr" if i % 30 == 29 else "en") for i, p in enumerate(like_musti(600, chained=400))]
    parts = leave_language_out(pairs, "fr")
    kept = len(parts["train"]) + len(parts["dev"])
    assert 0.08 * kept < len(parts["dev"]) < 0.2 * kept and leaks(pairs, parts) == 0


def test_fingerprints():
    pairs = like_musti(100)
    numbers = folds(pairs, 3)
    both = split_fingerprint(pairs, numbers)
    assert len(both) == 16 and both == split_fingerprint(pairs[::-1], numbers[::-1])
    assert split_fingerprint([replace(pairs[0], id="new"), *pairs[1:]], numbers) != both
    assert split_fingerprint(pairs, [(numbers[0] + 1) % 3, *numbers[1:]]) != both
    assert split_fingerprint(pairs[1:], numbers[1:]) != both
    assert fingerprint([replace(pairs[0], text="new"), *pairs[1:]]) != fingerprint(pairs)


def test_command(tmp_path, capsys):
    pairs = like_musti(120)
    rows = [
        {
            "id": p.id,
            "image": p.image,
            "text": p.text,
            "language": p.language,
            "subtask1_label": "YES" if p.label else "NO",
        }
        for p in pairs
    ]
    source, out = tmp_path / "a.json", tmp_path / "new" / "out.json"
    source.write_text(json.dumps({"pairs": [*rows, {"id": 999}]}))
    assert main([str(source), str(out), "--folds", "3", "--seed", "2"]) == 0
    printed, result = capsys.readouterr().out, json.loads(out.read_text())
    assert result["folds"] == {p.id: n for p, n in zip(pairs, folds(pairs, 3, 2))}
    assert result["fingerprint"] == split_fingerprint(pairs, folds(pairs, 3, 2)) and result["data"] == fingerprint(
        pairs
    )
    assert sum(n for row in result["counts"].values() for cell in row.values() for n in cell.values()) == 120
    assert "YES / NO" in printed and "fold 2" in printed and "left out, id 999: it has no text" in printed
    assert main([str(source), str(out), "--folds", "3", "--cut"]) == 0 and json.loads(out.read_text())["cut"] is True


def test_command_on_bad_input(tmp_path, capsys):
    assert main([str(tmp_path / "none.json"), str(tmp_path / "out.json")]) == 2
    (tmp_path / "a.json").write_text(json.dumps([{"id": 1, "image": "a", "text": "b"}]))
    assert main([str(tmp_path / "a.json"), str(tmp_path / "out.json")]) == 2
    assert main([str(tmp_path / "a.json"), str(tmp_path), "--folds", "2"]) == 2
    printed = capsys.readouterr()
    assert (
        "check the name" in printed.err and "choose fewer folds" in printed.err and not (tmp_path / "out.json").exists()
    )


def test_unlabelled_pairs_have_a_column(tmp_path, capsys):
    source = tmp_path / "a.json"
    source.write_text(json.dumps([{"id": i, "image": str(i), "text": str(i), "language": "sl"} for i in range(6)]))
    assert main([str(source), str(tmp_path / "out.json"), "--folds", "3"]) == 0
    assert "0 / 0 / 2" in capsys.readouterr().out
    assert main([str(source), str(tmp_path), "--folds", "3"]) == 2 and "cannot be written" in capsys.readouterr().err
