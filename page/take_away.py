"""A zip of one explanation: picture, maps, numbers, manifest."""

import tempfile
import zipfile
from pathlib import Path

from musti_model import Explanation

NOTE = """What one model made of one picture and one passage.

picture.png          the picture, as large as the page drew it
<name>.png, .npy     each map laid over the picture, and its raw values [rows, columns] in the picture's frame
heads-<branch>.npy   last-layer attention by head
manifest.json        answer, words and their values, gate, evidence, scales and colours of the maps, weights and versions

Attention and gate shares tell where the model looked and mixed; evidence tells what its answer hangs on; none tells whether it is right.
"""


def zipped(explanation: Explanation) -> str:
    """Path of a new zip; Gradio serves it to this visitor and deletes it with the rest of the visit."""
    folder = Path(tempfile.mkdtemp())
    explanation.save(folder / "explanation")
    (folder / "explanation" / "README.txt").write_text(NOTE, encoding="utf-8")
    path = folder / "explanation.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted((folder / "explanation").iterdir()):
            archive.write(file, f"explanation/{file.name}")
            file.unlink()
    return str(path)
