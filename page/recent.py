"""The last few questions, each opened, tokenised and encoded once for all that a visitor asks about it one after the
other."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

from musti_model.question import Question

MOST = 8  # questions; one holds 4 MB with the starter, some 25 with a ViT-B
KEPT = 600  # seconds after which a question that nobody came back to is forgotten; its file may be deleted meanwhile

Key = tuple[str, int, int, str]


class Recent:
    """Questions by picture file and passage. A file that was written anew is another question. Nothing in one is about
    whoever asked, and none is changed by what is asked about it (``Question``), so visitors and both lanes may share
    it; what could not be asked is not kept.

    On ZeroGPU every process that borrows a GPU has its own.
    """

    def __init__(self, ask: Callable[[str, str], Question]) -> None:
        """ask: picture file, passage -> question."""
        self._ask = ask
        self._held: dict[Key, tuple[float, Question]] = {}  # with when it was used; the longest unused first
        self._lock = threading.Lock()
        self._alarm: threading.Timer | None = None

    def __call__(self, picture: str, passage: str) -> Question:
        """The question. Raises what ``ask`` raises."""
        file = Path(picture).stat()
        key = (picture, file.st_mtime_ns, file.st_size, passage)
        with self._lock:
            held = self._held.get(key)
        # outside the lock: the other lane may ask another meanwhile
        question = held[1] if held else self._ask(picture, passage)
        with self._lock:
            self._held.pop(key, None)
            self._held[key] = time.monotonic(), question
            if len(self._held) > MOST:
                del self._held[next(iter(self._held))]
            self._forget()
        return question

    def _forget(self) -> None:
        """Drops what was not used for long, and sees to it that the rest is dropped as well if nobody comes."""
        oldest = time.monotonic() - KEPT
        self._held = {key: held for key, held in self._held.items() if held[0] > oldest}
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if self._held:
            self._alarm = threading.Timer(KEPT, self._wake)
            self._alarm.daemon = True  # else the page could not stop
            self._alarm.start()

    def _wake(self) -> None:
        with self._lock:
            self._forget()
