"""The browser of this machine, for screenshots, benchmarks and tests."""

import shutil

# The headless shell has no windows of its own to draw, and loads a page in less time.
NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def chromium() -> str | None:
    """Path of the first that is there; None where none is."""
    return next(filter(None, map(shutil.which, NAMES)), None)
