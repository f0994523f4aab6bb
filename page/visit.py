"""What a visit keeps, for how long, how its messages are told apart, and how its events run."""

from typing import Any

LIFETIME = 3600  # seconds after which uploads and answers of a visit are deleted
# Messages of one visitor may overtake each other, so each says when it left the browser: ms by the visitor's own clock, as the last input.
STAMP = "(...given) => [...given.slice(0, -1), Date.now()]"
MOST_MEGABYTES = 200  # of an uploaded file; a picture may have less, see musti_model.processing
PRIVATE: dict[str, Any] = {"api_visibility": "private"}
SILENT: dict[str, Any] = PRIVATE | {"queue": False, "show_progress": "hidden"}  # at once, in no queue
MODEL: dict[str, Any] = PRIVATE | {"concurrency_id": "model"}  # one after the other
