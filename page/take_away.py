"""What a visitor takes away: files on their way, and the zip of one explanation: picture, maps, numbers, manifest."""

import json
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import gradio as gr

from musti_model import Explanation, InputError
from musti_model.results import Faithfulness

NOTE = """What one model made of one picture and one passage.

picture.png          the picture, as large as the page drew it
<name>.png, .npy     each map laid over the picture, and its raw values [rows, columns] in the picture's frame
heads-<branch>.npy   last-layer attention by head
faithfulness.json    for this pair: areas under deletion and insertion against random orders, of words and regions (of \
the model, of a branch), of attention, of
                     the gate's effect and of the maps by name; single heads are not measured
manifest.json        answer (unsure or not, what was seen and read), words and their values, gate, evidence, scales \
and colours of the maps, weights and versions

Attention and gate shares tell where the model looked and mixed; evidence tells what its answer hangs on; none tells \
whether it is right.
"""


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder for files that are being made. Raises InputError where they cannot be written."""
    try:
        with tempfile.TemporaryDirectory() as work:
            yield Path(work)
    except OSError as error:
        raise InputError("The server could not write the files, perhaps its disk is full; try again later.") from error


def keeper(component: gr.components.Component) -> Callable[[str], str]:
    """Copies a file to where Gradio deletes it with the rest of a visit, and gives its new path."""
    return lambda path: str(component.move_resource_to_block_cache(path))


def zipped(explanation: Explanation, measured: dict[str, Faithfulness] | None, keep: Callable[[str], str]) -> str:
    """Path of a new zip. keep: see ``keeper``; nothing stays elsewhere.

    Raises: InputError where it cannot be written.
    """
    with scratch() as work:
        folder = explanation.save(work / "explanation")
        (folder / "README.txt").write_text(NOTE, encoding="utf-8")
        if measured:
            numbers = {name: asdict(f) for name, f in measured.items()}
            (folder / "faithfulness.json").write_text(json.dumps(numbers, indent=1), encoding="utf-8")
        path = work / "explanation.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in sorted(folder.iterdir()):
                archive.write(file, f"explanation/{file.name}")
        return keep(str(path))
