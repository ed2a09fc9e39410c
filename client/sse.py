"""Server-sent events (WHATWG HTML, section 9.2), decoded from lines; knows no socket."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple


class ServerSentEvent(NamedTuple):
    """One event: the id to resume after (empty when it had none) and its data."""

    id: str
    data: str


def decode(lines: Iterable[str]) -> Iterator[ServerSentEvent]:
    """Lines without their ends → events. Comments and fields that upres does not use are passed over.

    An event that is cut off before its empty line is dropped, as the specification asks.
    """
    event_id, data = "", list[str]()
    for line in lines:
        if not line:
            if data:
                yield ServerSentEvent(event_id, "\n".join(data))
            data = []
            continue
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "data":
            data.append(value)
        elif field == "id" and "\0" not in value:
            event_id = value
