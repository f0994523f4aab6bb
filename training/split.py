"""``python -m training.split FILE OUT.json --folds 5 --seed 0 [--cut]``: folds of a MUSTI file without leaks, see
``data/folds.py``."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from musti_model.errors import InputError
from musti_model.records import fingerprint, read_pairs

from .data.copies import recognise
from .data.folds import counts, cut_folds, draw_table, folds, notices, split_fingerprint


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; 2 for bad input."""
    parser = argparse.ArgumentParser(
        prog="python -m training.split", description="Folds of a MUSTI file without leaks."
    )
    parser.add_argument("file", type=Path, help="a MUSTI file")
    parser.add_argument("out", type=Path, help="JSON file for the folds")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--cut", action="store_true", help="divide components and leave out the pairs that would tie two folds"
    )
    options = parser.parse_args(arguments)
    try:
        pairs, bad = read_pairs(options.file)
        found = recognise(pairs)
        pairs = found.pairs
        numbers = (cut_folds if options.cut else folds)(pairs, options.folds, options.seed)
        table = counts(pairs, numbers)
        result = {
            "fingerprint": split_fingerprint(pairs, numbers),
            "data": fingerprint(pairs),
            "k": options.folds,
            "seed": options.seed,
            "cut": options.cut,
            "folds": {p.id: n for p, n in zip(pairs, numbers)},
            "counts": table,
            "notices": notices(pairs, numbers, options.folds) + found.notices,
            "bad": [str(b) for b in bad],
        }
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(result, indent=1) + "\n")
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    except OSError as error:
        print(f"{options.out} cannot be written ({error.strerror or error}); choose another file.", file=sys.stderr)
        return 2
    print(draw_table(table), *result["notices"], sep="\n")
    for words in result["bad"]:
        print(f"left out, {words}")
    print(f"fingerprint {result['fingerprint']}, {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
