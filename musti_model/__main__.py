"""Command line: ``python -m musti_model PICTURE "passage" [--json]``."""

import argparse
import json
import sys

from . import InputError, MustiPipeline, WeightsError
from .results import SAVED_SIDE


def main(arguments: list[str] | None = None) -> int:
    """Answers one pair; returns the exit status (2: bad input or weights, one sentence on standard error)."""
    parser = argparse.ArgumentParser(
        prog="python -m musti_model", description="Do picture and passage evoke the same smell?"
    )
    parser.add_argument("picture", help="image file")
    parser.add_argument("passage", help="text")
    parser.add_argument(
        "--weights", help="Hub id (optionally id@revision) or folder; default $MUSTI_MODEL or the embedded starter"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--explain",
        metavar="FOLDER",
        help=f"also write maps and numbers there, the picture at most {SAVED_SIDE} px wide or high",
    )
    options = parser.parse_args(arguments)
    try:
        pipe = MustiPipeline.from_pretrained(options.weights)
        if options.explain:
            explanation = pipe.explain(options.picture, options.passage)
            explanation.save(options.explain)
            prediction = explanation.prediction
        else:
            prediction = pipe(options.picture, options.passage)
    except OSError as error:
        print(f"The explanation could not be written to {options.explain}: {error.strerror}.", file=sys.stderr)
        return 2
    except (InputError, WeightsError) as error:
        print(error, file=sys.stderr)
        return 2
    if options.json:
        print(json.dumps(prediction.to_json(), ensure_ascii=False))
    else:
        label = f"cannot tell ({prediction.label}?)" if prediction.unsure else prediction.label
        print(f"{label}  probability {prediction.probability:.3f}, threshold {prediction.threshold:.3f}")
        for name, value in prediction.similarities.items():
            print(f"  {name}: cosine {value:+.3f}")
        for notice in prediction.notices:
            print(f"  note: {notice}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
