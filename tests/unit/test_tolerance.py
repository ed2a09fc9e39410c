"""What another release wrote is read back: unknown fields and words, at every depth of every message and document."""

import copy
import json
import types
import typing
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from tests.support.events import RESULT, queued, soon, started
from upres.core import events
from upres.core.api import Estimate, JobAccepted, PreviewTile, PreviewTiles, Problem, UploadLink
from upres.core.api_keys import ApiKey
from upres.core.enqueue import FirstRequest
from upres.core.errors import ModelError
from upres.core.manifest import Labels, Rule
from upres.core.rates import Rate
from upres.core.registry import Entry, Index, Version, parse, parse_index
from upres.core.schema import (
    EVENT,
    Cancelled,
    Failed,
    Failure,
    Progress,
    Queued,
    Requeued,
    Result,
    Snapshot,
    Started,
    StoredModel,
    StrictModel,
    Succeeded,
    TolerantModel,
    UnknownEvent,
    _Event,
    now,
)
from upres.core.served_models import ModelRef, ServedModel
from upres.core.tolerance import readable
from upres.core.verdicts import Verdict
from upres.core.workers import Worker
from upres.function.model_list import ModelDetails, ModelList, ModelSummary
from upres.function.stream import frames
from upres.worker.originals import Recipe
from upres.worker.remembered_limits import StoredLimits

JOB = "0" * 32
VERSION = Version(version="1", digest="d", created="2026-01-01", factors=(2, 4), description="x", licence="MIT")
LABELS = Labels(
    labels={"stable": "1", "canary": "2"}, rule=Rule(jobs=3, most_failed_percent=5), trial="r", before=("0",)
)
REF = ModelRef(version="1", digest="d", factors=(2, 4), strength=0.7)
TILE = PreviewTile(of_width=2, of_height=2, x=0, y=0, width=1, height=1, image="data:,")
PATHS = {"events_url": "/e", "status_url": "/s", "channel": "c"}
SUMMARY: dict[str, Any] = {
    "name": "m",
    "default": True,
    "description": "",
    "licence": "",
    "factors": (2,),
    "labels": {},
}
ENTRY = Entry(name="m", labels=LABELS, versions=(VERSION,))
STATE = {"model": "m", "model_version": "1", "output_format": "auto", "submitted_at": now(), "updated_at": now()}
EXAMPLES: list[BaseModel] = [
    Recipe(options={"upscale_factor": 2}, factors=(2, 4), sha256="0" * 64),
    queued(JOB),
    started(JOB),
    Progress(job_id=JOB, stage="upscale", percent=5, eta_seconds=1, notice="n", frame=1, frames=2),
    Requeued(job_id=JOB, reason="worker_lost"),
    Succeeded(job_id=JOB, result=RESULT.model_copy(update={"notices": ["n"], "strength": 0.3})),
    Failed(job_id=JOB, code="c", message="m", retryable=True),
    Cancelled(job_id=JOB),
    RESULT,
    Failure(code="c", message="m", retryable=True),
    Snapshot(job_id=JOB, status="running", deadline=soon(), stage="upscale", result=RESULT, **STATE),
    JobAccepted(job_id=JOB, status="queued", **PATHS),
    Problem(type="t", title="t", status=404, detail="d", code="c", retryable=False, errors=[{"field": "f"}]),
    Estimate(accepted=True, width=1, height=1, tiles=1, model="m", model_version="1", waiting=0, slots=1),
    UploadLink(image_key="k", upload_url="u", expires_at=now()),
    TILE,
    PreviewTiles(tiles=(TILE,)),
    Worker(name="w", state="ready", device="d", models=("m 1",), digests=("d",), slots=1, jobs=(JOB,)),
    REF,
    ServedModel(labels={"stable": REF}, rule=LABELS.rule, refused={"2": "why"}),
    Rate(jobs=1, x=1, y=1, xx=1, xy=1),
    ApiKey(key_id="k", name="n", digest="d", created_at=now()),
    LABELS.model_copy(update={"schema_version": 1}),
    LABELS.rule or LABELS,
    VERSION,
    ENTRY,
    Index(models={"m": ENTRY}),
    ModelSummary(**SUMMARY, jobs_url="/j"),
    ModelDetails(**SUMMARY, jobs_url="/j", versions=(VERSION,)),
    ModelList(models=(ModelSummary(**SUMMARY, jobs_url="/j"),)),
    StoredLimits(tile=8, batches={4: 64}),
    FirstRequest(job_id=JOB, request="d"),
    Verdict(well=False, version="1", kind="cpu", reason="it dies"),
]
EXACT = {"at", "deadline", "submitted_at", "updated_at", "expires_at", "created_at", "created", "stable", "canary"}
"""Texts with a form: times, and names of versions (a newer release cannot change what a version is called)."""
MAPS = {"seconds", "labels", "models", "refused", "errors", "batches"}
"""Fields with free names: a new name there is no unknown field."""
ODD: dict[str, Any] = {"deep": [1, {"x": None}], "text": "…"}

Place = tuple[str | int, ...]


def at(document: Any, place: Place) -> Any:
    for step in place:
        document = document[step]
    return document


def places(document: Any, here: Place = ()) -> Iterator[tuple[Place, Any]]:
    """All values in a JSON document, with the way to them."""
    yield here, document
    if isinstance(document, dict | list):
        for step, value in document.items() if isinstance(document, dict) else enumerate(document):
            yield from places(value, (*here, step))


def as_json(model: BaseModel) -> dict[str, Any]:
    return typing.cast(dict[str, Any], json.loads(model.model_dump_json(exclude_none=True)))


def read(model: BaseModel, document: object) -> BaseModel:
    return type(model).model_validate_json(json.dumps(document))


def is_record(place: Place, value: object) -> bool:
    """Whether a value is an object with fields: no map, and nothing that an earlier change added."""
    names = [step for step in place if isinstance(step, str)]
    return isinstance(value, dict) and (not names or names[-1] not in MAPS or names[-2:] == ["m", "labels"])


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda one: type(one).__name__)
def test_unknown_fields_are_ignored_or_kept_at_every_depth(example: BaseModel) -> None:
    plain = as_json(example)
    records = [place for place, value in places(plain) if is_record(place, value)]
    for place in records:
        changed = copy.deepcopy(plain)
        at(changed, place)["newer"] = ODD
        got = as_json(read(example, changed))
        owner = "newer" in at(got, place)
        assert got == (changed if owner else plain), place
        if isinstance(example, StoredModel):
            assert owner, f"{place} is lost when the document is written again"


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda one: type(one).__name__)
def test_unknown_words_are_kept_at_every_depth(example: BaseModel) -> None:
    plain = as_json(example)
    for place, value in places(plain):
        if (
            isinstance(value, str)
            and place[-1] not in EXACT
            and not (place == ("type",) and isinstance(example, _Event))
        ):
            changed = copy.deepcopy(plain)
            at(changed, place[:-1])[place[-1]] = "newer-word"
            assert as_json(read(example, changed)) == changed, place
    for name in MAPS & plain.keys():
        if isinstance(plain[name], dict) and plain[name]:
            changed = copy.deepcopy(plain)
            changed[name]["9" if name == "batches" else "newer"] = next(iter(plain[name].values()))
            assert as_json(read(example, changed)) == changed


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(st.sampled_from(EXAMPLES), st.lists(st.tuples(st.integers(0, 99), VALUES), min_size=1, max_size=4))
def test_any_unknown_fields_together_change_nothing(example: BaseModel, added: list[tuple[int, Any]]) -> None:
    changed = as_json(example)
    records = [place for place, value in places(changed) if is_record(place, value)]
    for number, (pick, value) in enumerate(added):
        at(changed, records[pick % len(records)])[f"newer{number}"] = value
    assert read(example, changed).model_copy() is not None
    known = {name: value for name, value in as_json(read(example, changed)).items() if not name.startswith("newer")}
    assert known.keys() == as_json(example).keys()


def test_an_event_of_an_unknown_kind_hides_no_other() -> None:
    stored = [one.model_dump_json() for one in (queued(JOB), started(JOB))]
    strange = ['{"type": "split", "job_id": "x", "parts": [1]}', '{"type": "progress"}', "{}", "[]", "no JSON", ""]
    entries = events.parse([(b"1-0", {b"data": one.encode()}) for one in [stored[0], *strange, stored[1]]])
    assert [type(event) for _, event in entries] == [Queued, *[UnknownEvent] * len(strange), Started]
    assert events.fold(event for _, event in entries) == events.fold([entries[0][1], entries[-1][1]])


def test_an_entry_of_the_stream_without_an_event_hides_no_other() -> None:
    stored = queued(JOB).model_dump_json().encode()
    entries = [{b"type": b"queued", b"data": stored}, {b"x": b"1"}, {b"data": b"\xff"}, {b"type": b"failed"}]
    read = events.parse([(b"1-%d" % number, entry) for number, entry in enumerate(entries)])
    assert [event.type for _, event in read] == ["queued", "", "", "failed"]
    assert events.fold(event for _, event in read).status == "failed"
    sent = frames([(b"1-%d" % number, entry) for number, entry in enumerate(entries)])
    assert [(frame.id, frame.terminal) for frame in sent] == [
        ("1-0", False),
        ("1-1", False),
        ("1-2", False),
        ("1-3", True),
    ]
    assert sent[1].text == "id: 1-1\ndata: {}\n\n"


@pytest.mark.parametrize("raw", [b"[" * 100_000, b'{"models": ' + b"[" * 100_000, b"null", b'{"models": 5}', b"\xff"])
def test_documents_of_any_content_are_refused_with_a_sentence(raw: bytes) -> None:
    """Python's own reader of JSON raises RecursionError for deep documents."""
    with pytest.raises(ModelError, match="`upres models reindex` rebuilds it"):
        parse_index(raw)
    with pytest.raises(ModelError, match="The manifest of x 1"):
        parse(raw, "x 1")


@pytest.mark.parametrize("kind", ["succeeded", "failed", "cancelled"])
def test_an_end_that_cannot_be_read_is_an_end(kind: typing.Literal["succeeded", "failed", "cancelled"]) -> None:
    unreadable = events.parse_one(json.dumps({"type": kind, "at": 5, "job_id": None}))
    assert isinstance(unreadable, UnknownEvent)
    assert events.is_terminal(unreadable)
    state = events.fold([queued(JOB), started(JOB), unreadable])
    assert (state.status, state.result, state.failure) == (kind, None, None)


def test_one_record_that_cannot_be_read_hides_no_other(caplog: pytest.LogCaptureFixture) -> None:
    fine = Rate(jobs=2).model_dump_json().encode()
    assert readable(Rate, [fine, b"{", None, b'{"jobs": "many"}', fine]) == [Rate(jobs=2)] * 2
    assert caplog.text.count("a record Rate cannot be read, and is left out") == 2


def subclasses(kind: type[BaseModel]) -> Iterator[type[BaseModel]]:
    for one in kind.__subclasses__():
        yield one
        yield from subclasses(one)


def parts(annotation: Any) -> Iterator[type[BaseModel]]:
    """All models in a type."""
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        if issubclass(annotation, BaseModel):
            yield annotation
        return
    for one in typing.get_args(annotation):
        yield from parts(one)


def test_every_message_has_an_example_here_and_none_has_a_strict_part() -> None:
    """A message that contains a model which refuses unknown fields is as strict as that one."""
    tolerant = {*subclasses(TolerantModel), *subclasses(StoredModel)} - {_Event}
    ours = {one for one in tolerant if one.__module__.startswith("upres.")}
    assert ours == {type(one) for one in EXAMPLES}
    for one in ours:
        for name, field in one.model_fields.items():
            strict = [part for part in parts(field.annotation) if issubclass(part, StrictModel)]
            assert not strict, f"{one.__name__}.{name}"


def test_the_words_that_this_release_knows_are_in_the_schema() -> None:
    assert EVENT.json_schema()["$defs"]["Progress"]["properties"]["stage"]["enum"][:2] == ["fetch", "decode"]
    assert Result.model_json_schema()["properties"]["depth"]["enum"] == [8, 16]
    with pytest.raises(ValidationError):
        Progress(job_id=JOB, stage=typing.cast(Any, ["upscale"]), percent=1)
