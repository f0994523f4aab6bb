"""A zip of pictures: which of its files a record means, or why none; and that picture, read no further than a picture
may be long. Nothing is unpacked."""

import io
import re
import stat
import unicodedata
import zipfile
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import unquote

from PIL import Image

from musti_model import InputError, Sentence
from musti_model.processing import MAX_BYTES, open_image

MOST_FILES = 10_000
MOST_DIRECTORY = 8_000_000  # bytes of the zip's list of files, which is read whole before they can be counted
LARGEST = 1024  # px of the longest side of a picture that is kept until the model takes it
STEP = 1 << 20  # bytes unpacked at a time
LONGEST, DEEPEST = 4000, 40  # characters of an address, and its last folders, that are looked at
CODE_PAGES = ("utf-8", "cp850", "cp852", "cp1252", "cp1250")  # in which programs write names without saying so
_SCHEME = re.compile(r"(?:[a-z][a-z0-9+.\-]*:)?//", re.IGNORECASE)
_STEM = re.compile(r"(.+)\.[A-Za-z0-9]{1,5}", re.DOTALL)
_FORBIDDEN = str.maketrans(dict.fromkeys('<>:"|?*', "_"))  # in file names of Windows; browsers write _ instead
# Stems that say nothing of what is shown: IIIF's qualities, sizes, sides, pages; found in another folder, they are of
# another object.
_COMMON = re.compile(
    r"(?:default|native|colou?r|gr[ae]y|bitonal|full|max|large|medium|small|preview|thumb(?:nail)?|images?|img|dsc[nf]?|pictures?|pics?|photos?|fotos?|bild|"
    r"pages?|scans?|files?|download|original|cover|front|back|recto|verso|index|view|[a-z]?)[\W_]*\d{0,4}[\W_]*[a-z]?"
)


@dataclass(frozen=True)
class Found:
    """What a record's address and id lead to. fit: how many last parts of address and name are equal; sure: not by the
    bare name of another folder."""

    member: int
    fit: int
    sure: bool = True


@dataclass(frozen=True)
class _Spelling:
    """A way to read a member's name. member: its place in the zip; rank: 0 for the name as it is, more for guesses;
    parts: folders and name."""

    member: int
    rank: int
    parts: tuple[str, ...]
    folded: tuple[str, ...]


class PictureZip:
    """The pictures of a zip, found by a record's address (whole, from some folder on, or its last part, as it is or
    URL-encoded) or by its id.

    A picture is taken only where no other one fits as well, where its folders are not those of another object, and
    where no other record of the batch has a better claim to it.
    """

    def __init__(self, path: str | Path, asked: Iterable[tuple[str, str]] = ()) -> None:
        """asked: (address, id) of the records of a batch, see ``know``. Raises InputError for what is no zip, or one
        made to mislead."""
        self.path = path
        self.archive = _opened(path)
        self.members = [m for m in self.archive.infolist() if not m.is_dir() and not _is_junk(m.filename)]
        if len(self.members) > MOST_FILES:
            raise InputError("The zip holds more than {most} files; split it.", most=MOST_FILES)
        _check_apart(self.archive)
        folders = [parts_of(m.filename)[:-1] for m in self.members]
        self.around = _common(folders)  # folders around all pictures
        self._by_name: dict[str, list[_Spelling]] = defaultdict(list)
        # by every end of a path; by the whole of it, and of what lies inside the folders around all
        self._by_end: dict[tuple[str, ...], list[_Spelling]] = defaultdict(list)
        self._by_path: dict[tuple[str, ...], list[_Spelling]] = defaultdict(list)
        for number, member in enumerate(self.members):
            for rank, parts in enumerate(_spellings(member)):
                spelling = _Spelling(number, rank, parts, tuple(map(folded, parts)))
                self._by_name[spelling.folded[-1]].append(spelling)
                for start in range(len(parts)):
                    self._by_end[spelling.folded[start:]].append(spelling)
                for way in {spelling.folded, spelling.folded[len(self.around) :]}:
                    self._by_path[way].append(spelling)
        self._asked: dict[tuple[str, str], Found | InputError] = {}
        self._entitled: dict[int, set[str]] = {}
        self.know(asked)

    def __reduce__(self) -> tuple[type[Self], tuple[Any, ...]]:
        """Sent to the process of a borrowed GPU, it is opened there again."""
        return type(self), (self.path, tuple(self._asked))

    def know(self, asked: Iterable[tuple[str, str]]) -> None:
        """Has it heed records, as (address, id), before any of them is answered: two objects must not share one
        picture."""
        new = {pair: self._find(*pair) for pair in asked if pair not in self._asked}
        if not new:
            return
        self._asked |= new
        takers: dict[int, dict[str, int]] = defaultdict(dict)
        for (address, _), found in self._asked.items():
            if isinstance(found, Found):
                takers[found.member][address] = max(found.fit, takers[found.member].get(address, 0))
        self._entitled = {member: _entitled(addresses) for member, addresses in takers.items()}

    def find(self, address: str, record_id: str = "") -> Found:
        """The picture of a record with this address and id. Raises InputError where there is none, or none for sure."""
        self.know([(address, record_id)])
        found = self._asked[address, record_id]
        if isinstance(found, InputError):
            raise found
        if address not in self._entitled[found.member]:
            raise InputError(
                (
                    "Several addresses lead to the one picture {name!r} of the zip; lay the pictures in the folders of "
                    "their addresses, or name each by its record's id."
                ),
                name=self.name_of(found),
            )
        return found

    def name_of(self, found: Found) -> str:
        """Its name in the zip, no longer than people read."""
        return shortened(self.members[found.member].filename)

    def open(self, address: str, record_id: str = "") -> Image.Image:
        """The picture of a record, no larger than LARGEST. Raises InputError for one that is not there, not for sure,
        too large, or no picture."""
        return self.read(self.find(address, record_id))

    def read(self, found: Found) -> Image.Image:
        """The picture that was found, no larger than LARGEST. Raises InputError for one that is too large or cannot be
        read."""
        member, name = self.members[found.member], self.name_of(found)
        if trouble := _trouble(member, name):
            raise InputError(trouble)
        try:
            return open_image(io.BytesIO(self._unpacked(member)), LARGEST)
        except InputError as error:
            raise InputError(
                "The picture {name!r} cannot be read: {problem}", name=name, problem=error.args[0]
            ) from error
        except Exception as error:
            # damaged, or its header tells other than what is there: zipfile raises almost anything
            raise InputError("The picture {name!r} is damaged in the zip; make the zip again.", name=name) from error

    def _unpacked(self, member: zipfile.ZipInfo) -> bytes:
        """In steps: read at once, all that a small file unpacks to would be made before it is cut to the size that its
        header tells."""
        with self.archive.open(member) as file:
            return b"".join(iter(lambda: file.read(STEP), b""))

    def _find(self, address: str, record_id: str) -> Found | InputError:
        read = [self._best(*reading) for reading in readings(address)]
        by_address = next((f for f in read if isinstance(f, Found)), None) or next((f for f in read if f), None)
        by_id = self._best((record_id,), 0, by_id=True) if 0 < len(record_id) <= LONGEST else None
        if not isinstance(by_id, Found):
            return (
                by_address
                or by_id
                or InputError("The zip holds no picture {name!r}.", name=shortened(last_of(address)))
            )
        if not isinstance(by_address, Found) or by_address.member == by_id.member:
            return by_id
        # 2.jpg may be the picture of record 2, or the last part of another record's address.
        bare = by_address.fit == 1 and len(parts_of(address)) > 1 and _says_nothing(last_of(address))
        return _several(last_of(address)) if bare else by_address

    def _best(self, asked: tuple[str, ...], host: int, by_id: bool = False) -> Found | InputError | None:
        """The one picture that fits best; None where none has the name; an InputError where it lies elsewhere, or
        several fit alike."""
        wanted = tuple(map(folded, asked))
        candidates = self._candidates(asked[-1], wanted, host)
        fitting: dict[int, tuple[int, bool, bool, int, bool]] = {}
        for held in candidates:
            inside = len(held.folded) - len(self.around)
            fit = _common_end(held.folded, wanted)
            whole = fit == len(held.folded) or fit >= len(wanted) - host or (fit == inside and fit > 1)
            if by_id and (inside != 1 or not held.rank):
                continue  # a picture called by an id lies beside the others, and has an ending
            if whole or (fit == 1 and not _says_nothing(asked[-1])):
                exact = held.parts[-fit:] == asked[-fit:]
                sure = whole or (inside == 1 and len(self.members) > 1)
                fits = (fit, exact and held.parts == asked, exact, -held.rank, sure)
                fitting[held.member] = max(fitting.get(held.member, fits), fits)
        if not fitting:
            return _elsewhere(asked[-1]) if wanted[-1] in self._by_name and not by_id else None
        ranked = sorted(fitting.items(), key=lambda item: item[1][:4], reverse=True)
        if len(ranked) > 1 and ranked[0][1][:4] == ranked[1][1][:4]:
            return _several(asked[-1])
        return Found(ranked[0][0], ranked[0][1][0], ranked[0][1][4])

    def _candidates(self, name: str, wanted: tuple[str, ...], host: int) -> list[_Spelling]:
        """Of the pictures with a name all that may fit. Of those whose name says nothing, as the default.jpg of ten
        thousand folders, these are few: the address without its host is the end of their path, or the whole of it the
        end of the address."""
        if not _says_nothing(name):
            return self._by_name.get(wanted[-1], [])
        ends = [self._by_path.get(wanted[start:], []) for start in range(len(wanted))]
        return [*self._by_end.get(wanted[host:] or wanted, []), *(s for end in ends for s in end)]


# Names ----------------------------------------------------------------------------------------------------------------


def parts_of(path: str) -> tuple[str, ...]:
    """Folders and name, divided by / or as Windows does it; one at least, the last DEEPEST at most."""
    return tuple(p for p in re.split(r"[/\\]", path) if p not in ("", ".", ".."))[-DEEPEST:] or (path,)


def folded(part: str) -> str:
    """As file systems that take small and capital letters, composed and decomposed ones, for the same see it."""
    if len(part) > 1000:  # no file's name; a long run of combining marks takes minutes to compose
        return part
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", part).casefold()).translate(_FORBIDDEN)


def readings(address: str) -> list[tuple[tuple[str, ...], int]]:
    """What an address may mean, as its parts with the number of those that name the host: as it is, decoded, without
    what follows ? or #."""
    if len(address) > LONGEST:
        return []
    rest = _without_scheme(address)
    texts = [text for cut in (rest, rest.partition("#")[0], re.split(r"[?#]", rest)[0]) for text in (cut, unquote(cut))]
    return [(parts_of(text), int(rest != address)) for text in dict.fromkeys(texts) if text]


def _without_scheme(address: str) -> str:
    scheme = _SCHEME.match(address)
    return address[scheme.end() :] if scheme else address


def last_of(address: str) -> str:
    """The file name at the end of an address."""
    return next((parts[-1] for parts, _ in reversed(readings(address))), address)


def shortened(name: str) -> str:
    """A name as a sentence quotes it."""
    return name if len(name) <= 80 else f"{name[:40]}…{name[-39:]}"


def _spellings(member: zipfile.ZipInfo) -> list[tuple[str, ...]]:
    """Parts of a member's name: as it is, as other code pages read it, URL-decoded, and without its ending."""
    names = [member.filename]
    if not member.flag_bits & 0x800 and not member.filename.isascii():
        raw = member.filename.encode("cp437", "replace")
        for page in CODE_PAGES:
            try:
                names.append(raw.decode(page))
            except UnicodeDecodeError:
                continue
    names += [_without_scheme(unquote(name)) for name in names if "%" in name]
    whole = [parts_of(name) for name in names]
    bare = [(*p[:-1], stem[1]) for p in whole if (stem := _STEM.fullmatch(p[-1]))]
    return list(dict.fromkeys([*whole, *bare]))


def _says_nothing(name: str) -> bool:
    """Whether pictures of many objects are called so: default.jpg, 3.jpg, page_12v.png."""
    stem = _STEM.fullmatch(name)
    return _COMMON.fullmatch(folded(stem[1] if stem else name)) is not None


def _is_junk(name: str) -> bool:
    """What Macs and Windows put beside pictures."""
    parts = parts_of(name)
    return (
        parts[0] == "__MACOSX"
        or parts[-1].startswith("._")
        or parts[-1].casefold() in (".ds_store", "thumbs.db", "desktop.ini")
    )


def _common_end(a: tuple[str, ...], b: tuple[str, ...]) -> int:
    """How many last parts of two paths are equal."""
    count = 0
    for x, y in zip(reversed(a), reversed(b), strict=False):
        if x != y:
            break
        count += 1
    return count


def _common(folders: list[tuple[str, ...]]) -> tuple[str, ...]:
    """The first parts that all have in common."""
    if not folders:
        return ()
    low, high = min(folders), max(folders)
    return low[: next((i for i, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), min(len(low), len(high)))]


def _entitled(takers: dict[str, int]) -> set[str]:
    """Of addresses that lead to one picture, with how well each fits: those that it belongs to."""
    best = {address for address, fit in takers.items() if fit == max(takers.values())}
    return next((group for group in (set(takers), best) if _agree(group)), set())


def _agree(addresses: set[str]) -> bool:
    """Whether addresses may be of one picture: each is the end of the longest, and they do not ask for different
    things."""
    paths, questions = [], set()
    for address in addresses:
        path, _, question = _without_scheme(address.partition("#")[0]).partition("?")
        paths.append(tuple(map(folded, parts_of(unquote(path.removeprefix("www."))))))
        questions.add(question)
    longest = max(paths, key=len)
    return len(questions - {""}) <= 1 and all(longest[-len(path) :] == path for path in paths)


# The zip --------------------------------------------------------------------------------------------------------------


class _Bounded(io.FileIO):
    """A file of which no more than the list of an honest zip is read at once."""

    def read(self, size: int | None = -1) -> bytes:
        if size is not None and size > MOST_DIRECTORY + STEP:
            raise InputError("The zip holds more than {most} files; split it.", most=MOST_FILES)
        return super().read(size)


def _opened(path: str | Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(_Bounded(path))
    except InputError:
        raise
    except Exception as error:  # names that are no text, versions to come: zipfile raises almost anything
        raise InputError("The second file is not a zip of pictures we can read; make it again.") from error


def _check_apart(archive: zipfile.ZipFile) -> None:
    """Raises InputError where two files share their bytes, as they do in a zip that unpacks to a thousand times its
    size."""
    end = 0
    for member in sorted(archive.infolist(), key=lambda m: m.header_offset):
        if member.header_offset < end or member.compress_size < 0:
            raise InputError("Files of the zip lie over each other; make the zip again.")
        end = member.header_offset + 30 + member.compress_size  # 30: the shortest header
    if end > archive.start_dir:
        raise InputError("Files of the zip lie over each other; make the zip again.")


def _trouble(member: zipfile.ZipInfo, name: str) -> Sentence | None:
    """Why a member is not read."""
    if member.flag_bits & 1:
        return Sentence("The picture {name!r} is locked by a password; make the zip without one.", name=name)
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return Sentence("The picture {name!r} is packed in an unusual way; make an ordinary zip (Deflate).", name=name)
    if stat.S_ISLNK(member.external_attr >> 16):
        return Sentence(
            "The picture {name!r} is only a link to a file; put the picture itself into the zip.", name=name
        )
    if re.match(r"[/\\]|[A-Za-z]:[/\\]", member.filename) or ".." in re.split(r"[/\\]", member.filename):
        return Sentence(
            "The name {name!r} leads out of the zip; make the zip inside the folder of the pictures.", name=name
        )
    if member.file_size > MAX_BYTES:
        return Sentence("The picture {name!r} is over {limit:.0f} MB.", name=name, limit=MAX_BYTES / 1e6)
    return None


def _several(name: str) -> InputError:
    return InputError(
        (
            "The zip holds several pictures that may be {name!r}; lay the pictures in the folders of their addresses, "
            "or name each by its record's id."
        ),
        name=shortened(name),
    )


def _elsewhere(name: str) -> InputError:
    return InputError(
        (
            "The zip holds {name!r} only in another folder than the address; lay the pictures in the folders of their "
            "addresses, or name each by its record's id."
        ),
        name=shortened(name),
    )
