"""The examples of the page: historical sentences with photographs, each with the answer that is right."""

import json
import zipfile
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import NamedTuple

from .language import later, say
from .take_away import scratch

FOLDER = Path(__file__).parents[1] / "assets" / "examples"
CREDITS = {
    "march-pastoral.jpg": (
        "Peter Henry Emerson, A March Pastoral, 1888. J. Paul Getty Museum, Open Content Program (CC0)"
    ),
    "allium-oreophilum.jpg": (
        "Karl Blossfeldt, Allium oreophilum, 1928. J. Paul Getty Museum, Open Content Program (CC0)"
    ),
    "nagasaki-boats.jpg": "Felice Beato, Nagasaki, 1860s. J. Paul Getty Museum, Open Content Program (CC0)",
    "china.jpg": "Peter Koe, CC BY 2.0",
    "flower.jpg": "dany13, CC BY 2.0",
}


class Example(NamedTuple):
    """A question with its right answer: "YES", "NO" or "cannot tell". picture: a file of FOLDER; source: whose words
    they are, where and when they were first printed; language: the passage's tag."""

    picture: str
    passage: str
    source: str
    answer: str
    language: str = "en"

    @property
    def path(self) -> Path:
        """The picture's file."""
        return FOLDER / self.picture


_ROSE = "What's in a name? That which we call a rose by any other name would smell as sweet."
EXAMPLES = (
    Example("allium-oreophilum.jpg", _ROSE, "William Shakespeare, Romeo and Juliet, 1597", "YES"),
    Example(
        "china.jpg",
        (
            "Da nahm Maria ein Pfund Salbe von ungefälschter, köstlicher Narde und salbte die Füße Jesu und trocknete "
            "mit ihrem Haar seine Füße; das Haus aber ward voll vom Geruch der Salbe."
        ),
        "Johannes 12, 3, Lutherbibel, 1912",
        "YES",
        "de",
    ),
    Example("march-pastoral.jpg", _ROSE, "William Shakespeare, Romeo and Juliet, 1597", "NO"),
    Example(
        "march-pastoral.jpg",
        (
            "The hungry sheep look up, and are not fed, But, swoln with wind and the rank mist they draw, Rot "
            "inwardly, and foul contagion spread."
        ),
        "John Milton, Lycidas, 1638",
        "YES",
    ),
    Example(
        "allium-oreophilum.jpg",
        (
            "Voici venir les temps où vibrant sur sa tige chaque fleur s'évapore ainsi qu'un encensoir; les sons et "
            "les parfums tournent dans l'air du soir."
        ),
        "Charles Baudelaire, Harmonie du soir, 1857",
        "YES",
        "fr",
    ),
    Example(
        "flower.jpg",
        (
            "What have we here? a man or a fish? dead or alive? A fish: he smells like a fish; a very ancient and "
            "fish-like smell."
        ),
        "William Shakespeare, The Tempest, 1623",
        "NO",
    ),
    Example(
        "nagasaki-boats.jpg",
        "Vanity of vanities, saith the Preacher, vanity of vanities; all is vanity.",
        "Ecclesiastes 1, 2, King James Version, 1611",
        "cannot tell",
    ),
)


def sources_html() -> str:
    """Whose sentences and pictures these are, in the visitor's language."""
    sentences = "".join(f"<li>{escape(source)}</li>" for source in dict.fromkeys(e.source for e in EXAMPLES))
    pictures = "".join(f"<li>{escape(CREDITS[name])}</li>" for name in dict.fromkeys(e.picture for e in EXAMPLES))
    return f"<p>{say(later('Sentences'))}</p><ul>{sentences}</ul><p>{say(later('Pictures'))}</p><ul>{pictures}</ul>"


def batch_of_examples(keep: Callable[[str], str]) -> tuple[str, str]:
    """Paths of a MUSTI file of the examples and of a zip of their pictures. keep: as in ``take_away.zipped``. Raises
    InputError where they cannot be written."""
    records = [
        {"id": n, "image": e.picture, "text": e.passage, "language": e.language}
        for n, e in enumerate(EXAMPLES, start=1)
    ]
    with scratch() as work:
        file, archive = work / "examples.json", work / "examples.zip"
        file.write_text(json.dumps({"pairs": records}, ensure_ascii=False, indent=1), encoding="utf-8")
        with zipfile.ZipFile(archive, "w") as pictures:
            for path in dict.fromkeys(e.path for e in EXAMPLES):
                pictures.write(path, path.name)
        return keep(str(file)), keep(str(archive))
