"""Event streams in the clients: any text in an event arrives unchanged, and what is malformed is an UpresError."""

import json
from contextlib import suppress

import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.support.foreign import JOB
from upres.client import ServerUnreachable
from upres.client.calls import NO_DEADLINE, Call
from upres.client.following import EventFollower
from upres.client.sse import Decoder, ServerSentEvent
from upres.core.errors import UpresError
from upres.core.schema import Event, Failed

LINE_ENDS = ["\n", "\r", "\r\n"]
OTHER_ENDS = "\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"
"""What `str.splitlines`, but no event stream, takes for the end of a line."""
TEXTS = st.text(st.characters(codec="utf-8") | st.sampled_from(OTHER_ENDS))


def follow(*pieces: bytes) -> list[tuple[str, Event]]:
    following = EventFollower(JOB, None, NO_DEADLINE)
    request = httpx.Request("GET", "http://upres.example/")
    call, headers = Call("GET", str(request.url)), {"Content-Type": "text/event-stream"}
    following.begin(call, httpx.Response(200, headers=headers, request=request))
    return [one for piece in pieces for one in following.feed(piece)]


@given(message=TEXTS, end=st.sampled_from(LINE_ENDS), at=st.integers(0, 400), more=st.integers(0, 400))
@example(message=OTHER_ENDS, end="\n", at=0, more=0)
def test_an_event_with_any_text_arrives_as_it_was_sent(message: str, end: str, at: int, more: int) -> None:
    sent = Failed(job_id=JOB, code="url_answered_error", message=message, retryable=False)
    lines = ["id: 17-0", f"data: {sent.model_dump_json()}", "", ""]
    stream = end.join(lines).encode() + (b"\n" if end == "\r" else b"")  # a CR at the end may be half of a CRLF
    assert follow(stream[:at], stream[at : at + more], stream[at + more :]) == [("17-0", sent)]


@given(text=st.text(st.characters(codec="utf-8", exclude_characters="\r\n\0")))
@example(text=OTHER_ENDS)
def test_a_line_ends_with_cr_and_lf_only(text: str) -> None:
    [event] = Decoder().feed(f"id: {text}\ndata: {text}\r\n\n".encode())
    assert event == ServerSentEvent(text, text)


@given(
    st.lists(st.binary(max_size=40) | st.sampled_from([b"\n", b"id: ", b"data: ", b'{"type":"queued"}']), max_size=9)
)
def test_any_bytes_are_events_or_an_error_of_upres(pieces: list[bytes]) -> None:
    with suppress(UpresError):
        follow(*pieces)


@pytest.mark.parametrize("data", ["[" * 100_000, '{"a":' * 100_000, '{"type": 1}', '{"type": "failed"}', "9" * 5000])
def test_malformed_data_is_an_error_of_upres(data: str) -> None:
    with pytest.raises(ServerUnreachable, match="not from upres"):
        follow(f"id: 1-0\ndata: {data}\n\n".encode())


@pytest.mark.parametrize("given_id", ["", "é", "1-0\u2028", "1", "1-0\x0b", "9" * 30 + "-0"])
def test_an_id_that_no_request_could_repeat_is_an_error_of_upres(given_id: str) -> None:
    ended = json.dumps({"type": "cancelled", "job_id": JOB})
    with pytest.raises(ServerUnreachable, match="id"):
        follow(f"id: {given_id}\ndata: {ended}\n\n".encode())
