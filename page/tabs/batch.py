"""The tab "Batch": a MUSTI file or a CSV, with a zip of pictures -> counts as they come, then the results."""

import itertools
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import gradio as gr

from musti_model import Sentence
from musti_model.records import BadRecord, MustiPair, parse_records

from ..answers import MOST_BYTES, SIZE, TABLES, records_of, row_of, write_results
from ..archive import PictureZip
from ..calls import Calls
from ..examples import batch_of_examples
from ..inputs import SafeFile
from ..language import language, refusal, refusing, say
from ..markup import alert, render
from ..take_away import keeper
from ..visit import LAST, LIFETIME, MOST_MEGABYTES, SILENT, STAMP

MOST_RECORDS, LATEST = 2000, 8
SHOWN = 80  # characters of a text, an id or the name of a language


def summary_html(rows: list[dict[str, Any]], finished: bool) -> str:
    """Counts by language, problems, and the latest rows."""
    languages: dict[str, Counter[str]] = {}
    for row in rows:
        if row["answer"]:
            languages.setdefault(row["language"][:SHOWN], Counter())[
                "cannot tell" if row["unsure"] else row["answer"]
            ] += 1
    problems = [(str(r["id"])[:SHOWN], r["problem"]) for r in rows if r["problem"]]
    title = (
        say("Not answered (the last {count} of them):", count=LATEST)
        if len(problems) > LATEST
        else say("Not answered:")
    )
    latest = [
        {
            "id": str(r["id"])[:SHOWN],
            "answer": say("cannot tell") if r["unsure"] else say(r["answer"]),
            "probability": r["probability"],
            "text": r["text"][:SHOWN],
        }
        for r in [r for r in rows if r["answer"]][-LATEST:]
    ]
    counts = say(
        "{answered} answered, {not_answered} not, of {all} records.",
        answered=len(rows) - len(problems),
        not_answered=len(problems),
        all=len(rows),
    )
    return render(
        "batch.html",
        language=language(),  # the files that come with it are in it, too, so it stays as it is when another is chosen
        finished=finished,
        counts=counts,
        languages=sorted(languages.items()),
        problems=problems[-LATEST:],
        problems_title=title,
        latest=latest,
    )


Files = tuple[str | None, str | None]  # a file of pairs and a zip of pictures


class Kept(NamedTuple):
    """What the results that are shown are about. finished: all is answered, and the files are made."""

    files: Files
    language: str
    finished: bool


class Fields:
    """The files that stand in the fields, by the message about them that left the browser last (``when``). Changed in
    place, so that a batch which is at work on others sees it and ends. Gradio's own way (``cancels``) would also cancel
    the batch that is asked for while a message about its files is on its way."""

    def __init__(self) -> None:
        self.files: Files = (None, None)
        self.when = 0.0

    def seen(self, files: Files, when: float) -> None:
        """What a message says of them."""
        if when >= self.when:
            self.files, self.when = files, when


class BatchTab:
    """Builds the tab inside the Blocks that is open."""

    def __init__(self, calls: Calls) -> None:
        self.calls = calls
        gr.HTML(
            Sentence(
                (
                    "A MUSTI file (<code>.json</code>) or a table (<code>.csv</code> with columns id, image, text, "
                    "language), and a zip of its pictures, each called as its address ends, or by its record’s id. At "
                    "most {most} records of {limit:.0f} MB in all, and {megabytes} MB of pictures. Every record comes "
                    "back, answered or with the reason why not. Files are deleted within two hours."
                ),
                most=MOST_RECORDS,
                limit=MOST_BYTES / 1e6,
                megabytes=MOST_MEGABYTES,
            )
        )
        with gr.Row():
            self.source = SafeFile(
                label="MUSTI file or CSV", file_types=[".json", ".jsonl", *TABLES], elem_id="batch-file"
            )
            self.pictures = SafeFile(label="Zip of pictures", file_types=[".zip"], elem_id="batch-zip")
        with gr.Row():
            self.button = gr.Button("Answer all", variant="primary", elem_id="batch-run")
            self.example = gr.Button("Try it with the examples of this page", elem_id="batch-example")
        self.told = gr.HTML(elem_id="batch-told")
        self.results = gr.File(
            label="Results", file_count="multiple", interactive=False, visible="hidden", elem_id="batch-results"
        )
        self.kept = gr.State(None, time_to_live=LIFETIME)
        self.fields, self.when = gr.State(Fields()), gr.Number(visible=False)
        self._wire()

    def _wire(self) -> None:
        files, shown = [self.source, self.pictures], [self.told, self.results, self.kept]
        given = [self.fields, self.kept, *files, self.when]
        # A place of its own in the queue: others are answered between the parts of a batch.
        seen = LAST | {"js": STAMP, "concurrency_id": "batch", "show_progress_on": self.told}
        asked = self.button.click(self.answer_all, given, shown, **seen)
        filled = self.example.click(self.fill_in, None, files, **SILENT)
        tried = filled.success(self.answer_all, given, shown, **seen)
        forgetful: dict[str, Any] = {"fn": self.forget, "inputs": given, "outputs": shown, "js": STAMP, **SILENT}
        gr.on([c.change for c in files], **forgetful)
        for event in (asked, tried):
            event.failure(self.blank, None, shown, **SILENT)
            event.then(**forgetful)  # the files may have changed while it was at work

    def fill_in(self) -> tuple[str, str]:
        """The page's examples as a file of pairs and a zip of pictures."""
        return refusing(lambda: batch_of_examples(keeper(self.source)))

    def blank(self) -> tuple[Any, ...]:
        """No results."""
        return "", gr.update(value=None, visible="hidden"), None

    def forget(
        self, fields: Fields, kept: Kept | None, file: str | None, archive: str | None, when: float
    ) -> tuple[Any, ...]:
        """Results of other files must not stand beside these; a message about the files at hand, which comes late,
        takes nothing away."""
        fields.seen((file, archive), when)
        return self.blank() if kept is not None and kept.files != fields.files else (gr.skip(),) * 3

    def answer_all(
        self,
        fields: Fields,
        kept: Kept | None,
        file: str | None,
        archive: str | None,
        when: float,
        progress: gr.Progress = gr.Progress(),
    ) -> Iterator[tuple[Any, ...]]:
        """The counts so far, again and again, then the results; or a sentence that stays in their place, as a toast
        would not, until the files change. Nothing where the results are there already."""
        fields.seen((file, archive), when)
        about = Kept((file, archive), language(), finished=False)
        if kept == about._replace(finished=True):
            yield (gr.skip(),) * 3  # a generator that gives nothing at all would empty its outputs
            return
        try:
            yield from self._answer_all(fields, about, progress)
        except gr.Error as error:
            yield alert(error), *self.blank()[1:-1], about

    def _answer_all(self, fields: Fields, about: Kept, progress: gr.Progress) -> Iterator[tuple[Any, ...]]:
        file, archive = about.files
        if not file or not archive:
            raise refusal("Choose a file of pairs and a zip of pictures first.")
        records, pictures = refusing(
            lambda: (list(itertools.islice(records_of(file), MOST_RECORDS + 1)), PictureZip(archive))
        )
        if not records:
            raise refusal("The file holds no record.")
        if len(records) > MOST_RECORDS:
            raise refusal("The file holds more than {most} records; split it.", most=MOST_RECORDS)
        items, rows = list(parse_records(records)), []
        pictures.know((item.image, item.id) for item in items if isinstance(item, MustiPair))
        for start in range(0, len(items), SIZE):
            rows += self._answered(items[start : start + SIZE], pictures)
            if fields.files != about.files:
                return
            progress(len(rows) / len(items), desc=f"{len(rows)} / {len(items)}")
            yield summary_html(rows, finished=False), gr.skip(), about
        files = refusing(lambda: write_results(rows, records, keeper(self.results)))
        yield summary_html(rows, finished=True), gr.update(value=files, visible=True), about._replace(finished=True)

    def _answered(self, items: list[MustiPair | BadRecord], pictures: PictureZip) -> list[dict[str, Any]]:
        """Rows of a part; where it cannot be answered at all, say for want of a GPU, each tells why, and the other
        parts go on."""
        try:
            return self.calls.answer_many(items, pictures)
        except gr.Error as error:
            return [row_of(item, str(error.message)) for item in items]
