"""Gets MUSTI's pictures from the museums that show them, politely, and writes a MUSTI file with local paths.

    python -m training.prepare musti-train.json OUT --contact you@example.org

OUT/images holds the pictures, OUT/pairs.json every record of the file in its order, OUT/report.json what is missing and
why, and which pictures are copies of each other. Started again, it fetches only what is not there. Exit code: 0 all
there, 1 some missing, 2 bad input, 130 interrupted.
"""

import argparse
import json
import os
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from musti_model.errors import InputError
from musti_model.records import BadRecord, MustiPair, bare_address, iter_records, parse_records

from .data.copies import recognise
from .data.fetch import (
    EXTENSIONS,
    FetchError,
    FetchSettings,
    Missing,
    clean_url,
    fetch,
    fetch_pictures,
    local_stem,
    picture_extension,
    retry_after,
)

__all__ = [
    "FetchError",
    "FetchSettings",
    "clean_url",
    "fetch",
    "local_stem",
    "main",
    "picture_extension",
    "prepare",
    "retry_after",
]


def pictures_there(urls: Iterable[str], folder: Path, workers: int = 4) -> dict[str, str]:
    """{URL: file name} of the pictures that an earlier run left and that still decode; damaged ones are removed."""
    stems = {local_stem(url): url for url in urls}
    files = [p for p in folder.iterdir() if p.stem in stems and p.suffix in EXTENSIONS.values()]

    def good(path: Path) -> bool:
        try:
            return picture_extension(path) == path.suffix
        except InputError:
            return False

    there = {}
    with ThreadPoolExecutor(workers) as pool:
        for path, fine in zip(
            files, tqdm(pool.map(good, files), total=len(files), desc="checking", unit="picture", disable=not files)
        ):
            if fine:
                there[stems[path.stem]] = path.name
            else:
                path.unlink()
    return there


# The file


def _address(pair: MustiPair) -> str:
    """Where the picture comes from, also in a file that was prepared before."""
    url = pair.record.get("image_url")
    return bare_address(url) if isinstance(url, str) and url.strip() else pair.image


def _with_picture(pair: MustiPair, outcome: str | Missing) -> dict[str, Any]:
    """The record with its picture's local path, or with the reason why there is none."""
    record = {k: v for k, v in pair.record.items() if k not in ("missing", "image_url")}
    if isinstance(outcome, Missing):
        return record | {"image": _address(pair), "missing": outcome.reason}
    return record | {"image": f"images/{outcome}", "image_url": _address(pair)}


def _write_json(path: Path, content: Any) -> None:
    """Whole or not at all. Half surrogates, which UTF-8 has no place for, are written as JSON's escapes."""
    part = path.with_name(path.name + ".part")
    with part.open("w", encoding="utf-8", errors="backslashreplace") as file:
        json.dump(content, file, ensure_ascii=False, indent=1)
        file.write("\n")
    os.replace(part, path)


def prepare(file: Path, out: Path, settings: FetchSettings) -> dict[str, Any]:
    """Fetches the pictures of a MUSTI file into ``out``/images and writes ``out``/pairs.json and ``out``/report.json.

    pairs.json has every record of the file in its order: ``image`` is a path relative to ``out`` and ``image_url`` the
    address; where the picture is missing, ``image`` stays the address and ``missing`` says why; records that are no
    pairs are as they were.

    Returns: the report: pairs, bad (sentences), pictures, fetched, there (from before), missing ([{url, ids, reason,
    detail}]), by_reason ({reason: {pictures, pairs}}), copies (lists of addresses whose pictures show the same).

    Raises: InputError for a file that is no MUSTI file or a folder that cannot be written.
    """
    items = list(parse_records(iter_records(file)))
    pairs = [item for item in items if isinstance(item, MustiPair)]
    if not items:
        raise InputError(f"The MUSTI file {file.name} has no records; check that it is the right one.")
    folder = out / "images"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for part in folder.glob("*.part"):
            part.unlink()
        outcomes, there = _outcomes(pairs, folder, settings)
        records = [_with_picture(i, outcomes[_address(i)]) if isinstance(i, MustiPair) else i.record for i in items]
        report = _report(file, items, outcomes, there) | {"copies": _copies(items, records, out)}
        _write_json(out / "pairs.json", {"pairs": records})
        _write_json(out / "report.json", report)
    except OSError as error:
        raise InputError(
            f"The folder {out} cannot be written ({error.strerror or error}); choose another one or make room."
        ) from error
    return report


def _outcomes(pairs: list[MustiPair], folder: Path, settings: FetchSettings) -> tuple[dict[str, str | Missing], int]:
    """{address as in the file: file name or what was wrong}, and how many pictures were there before. Each clean URL is
    fetched once."""
    clean: dict[str, str | Missing] = {}
    for address in dict.fromkeys(_address(p) for p in pairs):
        try:
            clean[address] = clean_url(address)
        except FetchError as error:
            clean[address] = error.missing
    urls = list(dict.fromkeys(u for u in clean.values() if isinstance(u, str)))
    there = pictures_there(urls, folder, settings.workers)
    by_url = there | fetch_pictures([u for u in urls if u not in there], folder, settings)
    return {address: by_url[u] if isinstance(u, str) else u for address, u in clean.items()}, len(there)


def _copies(items: list[MustiPair | BadRecord], records: list[Any], out: Path) -> list[list[str]]:
    prepared = [
        replace(i, image=r["image"], record=r, folder=out)
        for i, r in zip(items, records)
        if isinstance(i, MustiPair) and "missing" not in r
    ]
    address = {p.image: p.record["image_url"] for p in reversed(prepared)}
    return [[address[image] for image in same] for same in recognise(prepared).copies]


def _report(
    file: Path, items: list[MustiPair | BadRecord], outcomes: dict[str, str | Missing], there: int
) -> dict[str, Any]:
    ids: dict[str, list[str]] = defaultdict(list)
    for item in items:
        if isinstance(item, MustiPair):
            ids[_address(item)].append(item.id)
    names = {o for o in outcomes.values() if isinstance(o, str)}
    lost = {address: o for address, o in outcomes.items() if isinstance(o, Missing)}
    pictures = Counter(m.reason for m in lost.values())
    hit = Counter(lost[address].reason for address in lost for _ in ids[address])
    return {
        "file": str(file),
        "pairs": sum(map(len, ids.values())),
        "bad": [str(item) for item in items if not isinstance(item, MustiPair)],
        "pictures": len(names) + len(lost),
        "fetched": len(names) - there,
        "there": there,
        "missing": [
            {"url": address, "ids": ids[address], "reason": m.reason, "detail": m.detail} for address, m in lost.items()
        ],
        "by_reason": {reason: {"pictures": n, "pairs": hit[reason]} for reason, n in pictures.most_common()},
    }


def _print_report(report: dict[str, Any], out: Path) -> None:
    print(
        f"{report['pairs']} pairs with {report['pictures']} pictures: {report['fetched']} fetched, "
        f"{report['there']} there before, {len(report['missing'])} missing."
    )
    for reason, n in report["by_reason"].items():
        print(f"  {reason}: {n['pictures']} pictures, {n['pairs']} pairs")
    if report["copies"]:
        many = sum(map(len, report["copies"]))
        print(
            f"{many} of the pictures show only {len(report['copies'])} different ones (report.json lists them); a "
            "split takes copies for one picture."
        )
    for words in report["bad"]:
        print(f"  kept as it was, {words}")
    print(f"Pairs: {out / 'pairs.json'}; report: {out / 'report.json'}")


def _arguments(arguments: Sequence[str] | None) -> tuple[Path, Path, FetchSettings]:
    base = FetchSettings()
    parser = argparse.ArgumentParser(prog="python -m training.prepare", description="Fetches MUSTI's pictures.")
    parser.add_argument("file", type=Path, help="a MUSTI file")
    parser.add_argument("out", type=Path, help="folder for pictures, pairs.json and report.json")
    for name, least, words in (
        ("workers", 1, "pictures at once"),
        ("per_host", 1, "pictures at once from one host"),
        ("delay", 0, "seconds between two requests to a host"),
        ("timeout", 0.1, "seconds a host may be silent"),
        ("total", 0.1, "seconds of transfer for one picture"),
        ("max_bytes", 1, "bytes of one picture"),
        ("retries", 0, "tries after the first"),
        ("max_wait", 0, "seconds to wait at most, whatever a host asks"),
    ):
        usual = getattr(base, name)
        parser.add_argument(
            f"--{name.replace('_', '-')}", type=_number(type(usual), least), default=usual, help=f"{words}, {usual:g}"
        )
    parser.add_argument("--contact", type=_header, default="", help="an e-mail or web address for the hosts' keepers")
    values = vars(parser.parse_args(arguments))
    return values.pop("file"), values.pop("out"), FetchSettings(**values)


def _number(kind: type, least: float) -> Any:
    def number(text: str) -> float:
        value = kind(text)
        if not least <= value < 1e12:
            raise argparse.ArgumentTypeError(f"{text} is not {least:g} or more")
        return value

    return number


def _header(text: str) -> str:
    if not re.fullmatch(r"[\x20-\x7e]*", text):
        raise argparse.ArgumentTypeError("write the contact in plain ASCII letters")
    return text.strip()


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    file, out, settings = _arguments(arguments)
    try:
        report = prepare(file, out, settings)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Interrupted; the same command goes on from here.", file=sys.stderr)
        return 130
    _print_report(report, out)
    return 1 if report["missing"] or report["bad"] else 0


if __name__ == "__main__":
    sys.exit(main())
