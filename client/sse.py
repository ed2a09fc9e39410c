"""Server-sent events (WHATWG HTML, section 9.2), decoded from lines; knows no socket."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple


class ServerSentEvent(NamedTuple):
    """One event: the id to resume after (empty when it had none) and its data."""

    id: str
    data: str


class Decoder:
    """Takes lines one by one. Comments and fields that upres does not use are passed over.

    An event that is cut off before its empty line is dropped, as the specification asks.
    """

    def __init__(self) -> None:
        self._id = ""
        self._data: list[str] = []

    def feed(self, line: str) -> ServerSentEvent | None:
        """A line without its end → the event that it ends, if it does."""
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
    """Lines → events."""
    decoder = Decoder()
    for line in lines:
        if event := decoder.feed(line):
            yield event
