"""What was last found out about questions, kept for all that visitors ask about them one after the other."""

import hashlib
import threading
import time
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Generic, TypeVar

MOST = 8  # kept of each kind; a question holds 4 MB with the starter, some 25 with a ViT-B, an explanation 3
KEPT = 600  # seconds after which what nobody came back to is forgotten; its file may be deleted meanwhile

Kept = TypeVar("Kept")


class Recent(Generic[Kept]):
    """Results by picture and passage. The same picture uploaded again is the same question; a file that was written
    anew is another. Nothing in a result is about whoever asked, and none is changed by its use, so visitors and both
    lanes may share it; what failed is not kept.

    On ZeroGPU every process that borrows a GPU has its own.
    """

    def __init__(self) -> None:
        self._held: dict[Hashable, tuple[float, Kept]] = {}  # with when it was used; the longest unused first
        self._lock = threading.Lock()
        self._alarm: threading.Timer | None = None

    def __call__(self, picture: str, passage: str, make: Callable[[], Kept], *more: Hashable) -> Kept:
        """What ``make`` gives, or gave of late.

        Args:
            picture: file. more: what else the result depends on.

        Raises: what ``make`` raises; OSError for a file that is gone.
        """
        with Path(picture).open("rb") as file:
            key = (hashlib.file_digest(file, "sha256").digest(), passage, *more)
        with self._lock:
            held = self._held.get(key)
        # outside the lock: the other lane may ask another meanwhile
        result = held[1] if held else make()
        with self._lock:
            self._held.pop(key, None)
            self._held[key] = time.monotonic(), result
            if len(self._held) > MOST:
                del self._held[next(iter(self._held))]
            self._forget()
        return result

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
