"""Undoes the packing of a body (Content-Encoding), in pieces of bounded size: a small body may be packed from a huge
one."""

import zlib
from collections.abc import Iterator

import brotli

PIECE = 1 << 16  # bytes given out at a time
MAX_LAYERS = 3


class TooLarge(Exception):
    """More comes out than may."""


class BadPacking(Exception):
    """The bytes are not packed as the host says."""


class _Zlib:
    """gzip, or deflate with or without zlib's frame, which hosts mix up: the first two bytes tell. What is said to be
    gzip and does not begin so is passed on as it is."""

    def __init__(self, name: str) -> None:
        self._name, self._head, self._plain = name, b"", False
        self._engine: zlib._Decompress | None = None

    @property
    def finished(self) -> bool:
        return self._plain or bool(self._engine and self._engine.eof)

    def feed(self, data: bytes) -> Iterator[bytes]:
        data, self._head, more = self._head + data, b"", False
        while (data or more) and not self._plain:
            if not self._engine or self._engine.eof:
                if len(data) < 2:
                    self._head = data
                    return
                if self._engine and data[:2] != b"\x1f\x8b":  # what hosts put behind the end is nothing
                    return
                self._begin(data)  # also another gzip stream right behind the first, which belongs to it
                continue
            try:
                piece = self._engine.decompress(data, PIECE)
            except zlib.error as error:
                raise BadPacking(str(error)) from error
            data = self._engine.unused_data if self._engine.eof else self._engine.unconsumed_tail
            # the engine may hold what found no room, though it has read everything
            more = len(piece) == PIECE and not self._engine.eof
            if piece:
                yield piece
        if self._plain:
            yield data

    def _begin(self, data: bytes) -> None:
        if data[:2] == b"\x1f\x8b":
            bits = 16 + zlib.MAX_WBITS
        elif self._name == "gzip":
            self._plain = True
            return
        else:
            bits = (
                zlib.MAX_WBITS if data[0] & 15 == 8 and int.from_bytes(data[:2], "big") % 31 == 0 else -zlib.MAX_WBITS
            )
        self._engine = zlib.decompressobj(bits)


class _Brotli:
    def __init__(self) -> None:
        self._engine = brotli.Decompressor()

    @property
    def finished(self) -> bool:
        return self._engine.is_finished()

    def feed(self, data: bytes) -> Iterator[bytes]:
        while not self.finished:
            try:
                piece = self._engine.process(data, output_buffer_limit=PIECE)
            except brotli.error as error:
                raise BadPacking(str(error)) from error
            data = b""
            if piece:
                yield piece
            elif self._engine.can_accept_more_data():
                return


class Unpacker:
    """Takes a body as it comes and gives it as it was before the host packed it.

    Args:
        encoding: the header Content-Encoding. Packings we do not know are left as they are, as browsers do: some hosts
            write "none" or "utf-8" there.
        limit: bytes that no packing may hold more of.
    """

    def __init__(self, encoding: str, limit: int) -> None:
        names = [name.strip().lower().removeprefix("x-") for name in encoding.split(",")]
        packings = [name for name in reversed(names) if name in ("gzip", "deflate", "br")]
        if len(packings) > MAX_LAYERS:
            raise BadPacking(f"packed {len(packings)} times")
        self._layers = [_Brotli() if name == "br" else _Zlib(name) for name in packings]
        self._given, self._limit = [0] * len(packings), limit

    @property
    def packed(self) -> bool:
        """Whether there is anything to unpack."""
        return bool(self._layers)

    @property
    def finished(self) -> bool:
        """Whether every packing came to its end."""
        return all(layer.finished for layer in self._layers)

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The next bytes of the body -> what they hold. Raises: TooLarge, BadPacking."""
        return self._through(data, 0)

    def _through(self, data: bytes, number: int) -> Iterator[bytes]:
        if number == len(self._layers):
            yield data
            return
        for piece in self._layers[number].feed(data):
            self._given[number] += len(piece)
            if self._given[number] > self._limit:
                raise TooLarge
            yield from self._through(piece, number + 1)
