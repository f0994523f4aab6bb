"""What a visit keeps, for how long, how its messages are told apart, and how its events run."""

from typing import Any

LIFETIME = 3600  # seconds after which uploads and answers of a visit are deleted
# Messages of one visitor may overtake each other, so each says when it left the browser: ms since the page was opened,
# which no setting of a clock turns back, as the last input.
STAMP = "(...given) => [...given.slice(0, -1), performance.now()]"
MOST_MEGABYTES = 200  # of an uploaded file; a picture may have less, see musti_model.processing
MOST_VISITS = 500  # whose state is kept, some megabytes each with an explanation; the oldest is forgotten first
# Messages in all queues together. 200 visitors who ask at once never have more than 200 waiting, and are answered at 16
# to 20 a second on two busy cores (``benchmarks.load``): at this size a quick question is answered within a minute, and
# no visitor of five times as many is turned away.
MOST_WAITING = 1000
PRIVATE: dict[str, Any] = {"api_visibility": "private"}
# What is asked again while it is under way is asked once more after it, with what stands there then. Gradio's default
# would drop it, and who asked another question would never get its explanation.
LAST = PRIVATE | {"trigger_mode": "always_last"}
# At every message Gradio tells each output of an event how far it is, and looks for it through the whole page. Of an
# event whose progress is not shown none is told, of any other one (``show_progress_on``): that spares the browser two
# thirds of its work on a question.
UNSEEN: dict[str, Any] = {"show_progress": "hidden", "show_progress_on": []}
SILENT: dict[str, Any] = LAST | UNSEEN | {"queue": False}  # at once, in no queue
# Lanes: the events of each are answered one after the other, those of different lanes at the same time (see ``Calls``).
# tens of milliseconds: some are unpacked while one is answered
FAST: dict[str, Any] = LAST | {"concurrency_id": "quick", "concurrency_limit": 4}
SLOW: dict[str, Any] = LAST | {"concurrency_id": "slow"}  # a second and more
MANY: dict[str, Any] = LAST | {"concurrency_id": "many"}  # rankings
