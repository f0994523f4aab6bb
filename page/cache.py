"""The folder that uploads and answers lie in: this page's own, swept by age, because Gradio forgets the files of a
process that was stopped or killed, and never knew those of an upload that was broken off."""

import asyncio
import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Collection, Iterator
from pathlib import Path
from typing import Any

OWN = "page-uploads-"  # how the folder of one running page begins; nothing else is ever swept
VARIABLE = "GRADIO_TEMP_DIR"  # where Gradio looks for it


def own_folder() -> Path:
    """A folder for this process alone in ``$GRADIO_TEMP_DIR``, or where the system keeps temporary files; the variable
    names it from then on, for Gradio to find. Nothing is created."""
    folder = Path(os.environ.get(VARIABLE) or tempfile.gettempdir()).resolve()
    if not folder.name.startswith(OWN):
        folder /= f"{OWN}{os.getpid()}-{time.time_ns()}"
    os.environ[VARIABLE] = str(folder)
    return folder


def sweep(folder: Path, age: float, kept: Collection[str] = ()) -> None:
    """Deletes what was written more than ``age`` seconds ago in ``folder`` and in those that other runs of the page
    left beside it. Does nothing in a folder that is not a page's own.

    kept: files that are needed as long as the page runs. They are touched: another page that runs beside this one sees
    that they are new.
    """
    if not folder.name.startswith(OWN):
        return
    for name in kept:
        if Path(name).is_relative_to(folder):
            with contextlib.suppress(OSError):
                os.utime(name)
    oldest = time.time() - age
    for root in folder.parent.glob(f"{OWN}*"):
        if root.is_symlink() or not root.is_dir():
            continue
        for path, changed in list(_deepest_first(root)):  # told first: a folder changes when something in it is deleted
            with contextlib.suppress(OSError):  # another page may sweep as well; a folder may hold what is younger
                if changed < oldest:
                    path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()


def _deepest_first(root: Path) -> Iterator[tuple[Path, float]]:
    """All that lies in a folder, and the folder, each with the time when it was changed last."""
    for place, folders, files in os.walk(root, topdown=False):
        for path in [*(Path(place) / name for name in (*files, *folders)), *([root] if Path(place) == root else [])]:
            with contextlib.suppress(OSError):
                yield path, path.lstat().st_ctime


def swept(age: float) -> Any:
    """The page's ``lifespan``: its folder is private, swept when it starts and twice an ``age``, and gone when it
    stops."""

    @contextlib.asynccontextmanager
    async def running(app: Any) -> AsyncIterator[None]:
        folder = Path(os.environ.get(VARIABLE, ""))
        if folder.name.startswith(OWN):
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(0o700)  # Gradio made it when the examples were put there, for all to read
        task = asyncio.create_task(_now_and_then(app, folder, age))
        try:
            yield
        finally:
            task.cancel()
            if folder.name.startswith(OWN):
                shutil.rmtree(folder, ignore_errors=True)

    return running


async def _now_and_then(app: Any, folder: Path, age: float) -> None:
    while True:
        kept = {path for block in app.get_blocks().blocks.values() for path in getattr(block, "keep_in_cache", ())}
        await asyncio.to_thread(sweep, folder, age, kept)
        await asyncio.sleep(age / 2)
