"""Decodes server-sent events (WHATWG HTML, section 9.2) from lines of text; does no I/O."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple


class ServerSentEvent(NamedTuple):
    """One event: its id, to resume after (empty without one), and its data."""

    id: str
    data: str


class Decoder:
    """Decodes events line by line. Ignores comments and fields that upres does not use.

    An event that is cut off before its final empty line is dropped, as the specification requires.
    """

    def __init__(self) -> None:
        self._id = ""
        self._data: list[str] = []

    def feed(self, line: str) -> ServerSentEvent | None:
        """Decode one line without its line end; returns the event that this line completes, or None."""
        if not line:
            data, self._data = self._data, []
            return ServerSentEvent(self._id, "\n".join(data)) if data else None
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "data":
            self._data.append(value)
        elif field == "id" and "\0" not in value:
            self._id = value
        return None


def decode(lines: Iterable[str]) -> Iterator[ServerSentEvent]:
    """Decode all complete events in lines."""
    decoder = Decoder()
    for line in lines:
        if event := decoder.feed(line):
            yield event
