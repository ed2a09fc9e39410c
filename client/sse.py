"""Decodes server-sent events (WHATWG HTML, section 9.2) from bytes; does no I/O."""

import codecs
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

_LINE_END = re.compile(r"\r\n|\n|\r")


class ServerSentEvent(NamedTuple):
    """One event: its id, to resume after (empty without one), and its data."""

    id: str
    data: str


class Decoder:
    """Decodes events piece by piece. Ignores comments and fields that upres does not use.

    A line ends with CR, LF or CRLF only: other characters at which `str.splitlines` divides, such as U+2028, may be
    in the data. An event that is cut off before its final empty line is dropped, as the specification requires.
    """

    def __init__(self) -> None:
        self.understood = 0
        """Number of lines that a stream of events may have; a page that passes for a stream has none."""
        self._text = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest = ""
        self._id = ""
        self._data: list[str] = []

    def feed(self, piece: bytes) -> Iterator[ServerSentEvent]:
        """Decode one piece of the stream; yields the events that it completes."""
        text = self._rest + self._text.decode(piece)
        half = "\r" if text.endswith("\r") else ""  # perhaps the first half of CRLF
        *lines, rest = _LINE_END.split(text.removesuffix(half))
        self._rest = rest + half
        for line in lines:
            if event := self._line(line):
                yield event

    def _line(self, line: str) -> ServerSentEvent | None:
        if not line:
            data, self._data = self._data, []
            return ServerSentEvent(self._id, "\n".join(data)) if data else None
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        self.understood += field in ("", "data", "event", "id", "retry")
        if field == "data":
            self._data.append(value)
        elif field == "id" and "\0" not in value:
            self._id = value
        return None


def decode(pieces: Iterable[bytes]) -> Iterator[ServerSentEvent]:
    """Decode all complete events in pieces."""
    decoder = Decoder()
    for piece in pieces:
        yield from decoder.feed(piece)
