"""Bodies that are taken apart while they come mean the same as json.loads reads, wherever they are cut."""

import base64
import json
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from upres.core.errors import BodyTooLarge, InvalidJson, InvalidRequest, TooManyBytes
from upres.function import json_body
from upres.function.base64_file import Base64File
from upres.function.json_body import IMAGE, JsonBody

MOST = 1_000
any_text = st.text(st.characters(codec=None), max_size=20)
values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | any_text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(any_text | st.just(IMAGE), inner, max_size=3),
    max_leaves=8,
)
files = st.binary(min_size=1, max_size=60)
documents = st.tuples(st.dictionaries(any_text, values, max_size=4), files, st.integers(0, 4))
"""Fields of a document, the file in it, and how many of the fields come before the file."""


def text_of(document: tuple[dict[str, Any], bytes, int], ascii: bool = True, indent: int | None = None) -> str:
    fields, file, before = document
    items = [(name, value) for name, value in fields.items() if name != IMAGE]
    items.insert(before, (IMAGE, base64.b64encode(file).decode()))
    return json.dumps(dict(items), ensure_ascii=ascii, indent=indent)


def read(pieces: Iterable[bytes]) -> tuple[Any, Base64File]:
    body = JsonBody(Base64File(MOST), "")
    for piece in pieces:
        body.feed(piece)
    return json.loads(body.finish()), body.image


@settings(max_examples=25)
@given(
    documents, st.booleans(), st.sampled_from([None, 1]), st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32-be"])
)
def test_a_document_means_the_same_wherever_it_is_cut(
    document: tuple[dict[str, Any], bytes, int], ascii: bool, indent: int | None, encoding: str
) -> None:
    data = text_of(document, ascii, indent).encode(encoding, "surrogatepass")
    expected = {**json.loads(data), IMAGE: ""}
    for at in range(len(data)):
        found, image = read((data[:at], data[at:]))
        assert json.dumps(found) == json.dumps(expected)
        assert image.file() == document[1]
    found, image = read(data[at : at + 1] for at in range(len(data)))
    assert json.dumps(found) == json.dumps(expected)
    assert image.file() == document[1]


@given(st.text('{}[]",:\\u0aeinx/ \n\x01é', max_size=30), st.integers(0, 30))
def test_what_is_no_json_is_refused_wherever_it_is_cut(text: str, at: int) -> None:
    data = text.encode()
    try:
        expected: Any = json.loads(data)
    except ValueError:
        with pytest.raises((InvalidJson, ValueError)):
            read((data[:at], data[at:]))
        return
    assert json.dumps(read((data[:at], data[at:]))[0]) == json.dumps(expected)


@pytest.mark.parametrize("escape", ["\\/", "\\u002f", "\\u002F"])
def test_escapes_in_base64_and_in_its_name_are_understood(escape: str) -> None:
    data = f'{{"image\\u005fbase64": "aa{escape}a\\n\\r\\u0020aa=="}}'.encode()
    for at in range(len(data)):
        assert read((data[:at], data[at:]))[1].file() == base64.b64decode("aa/aaa==")


def test_the_last_of_several_images_counts_and_nested_ones_do_not() -> None:
    data = (
        b'{"image_base64": "!", "a": {"image_base64": "eHh4"}, "image_base64": "eA==", "b": ["image_base64", "eXl5"]}'
    )
    found, image = read([data])
    assert image.file() == b"x"
    assert found == {IMAGE: "", "a": {IMAGE: "eHh4"}, "b": [IMAGE, "eXl5"]}


@pytest.mark.parametrize("unit", ["A", "é", "İ", "𝄞", "\\u0130", "\\\\", "\\n"])
@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_a_long_text_is_cut_to_what_suffices_to_refuse_it(
    unit: str, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_body, "TEXT_BYTES", 100)
    data = b'{"model": "' + (unit * 200).encode() + b'", "fit": "exact"}'
    found, _ = read(data[at : at + size] for at in range(0, len(data), size))
    assert found["fit"] == "exact"
    assert 100 / 12 <= len(found["model"]) <= 100
    assert json.loads(data)["model"].startswith(found["model"])


def test_a_body_that_is_large_besides_its_image_is_refused_before_its_end() -> None:
    for unit in (b"1", b":", b'""', b"a"):
        with pytest.raises(BodyTooLarge, match="besides image_base64"):
            read([b'{"a": ', unit * json_body.REST_BYTES])
    assert read([b'{"a": ', b" " * 10_000_000, b"1}"])[0] == {"a": 1}
    with pytest.raises(InvalidJson, match="commas and brackets"):
        read([b'{"a": ', b"[" * 12_001])


@given(st.binary(min_size=1, max_size=200), st.sampled_from(["", "data:image/png;base64,", " DATA:,"]), st.data())
def test_base64_is_decoded_with_white_space_anywhere(file: bytes, before: str, data: st.DataObject) -> None:
    text = base64.b64encode(file).decode()
    for _ in range(data.draw(st.integers(0, 3))):
        at = data.draw(st.integers(0, len(text)))
        text = text[:at] + data.draw(st.sampled_from([" ", "\n", "\r\n", "\t"])) + text[at:]
    assert decoded(before + text, data.draw(st.integers(1, 9)), len(file)) == file
    if len(file) > 1:
        with pytest.raises(TooManyBytes):
            decoded(before + text, 5, len(file) - 1)


@given(st.text(st.sampled_from("AZaz09+/=-_!é\0"), max_size=12), st.integers(1, 12))
def test_base64_of_both_alphabets_is_read_with_or_without_padding_and_refused_if_it_is_wrong(
    text: str, size: int
) -> None:
    whole = text.replace("-", "+").replace("_", "/")
    if "=" not in text and len(text) % 4 > 1:
        whole += "=" * (4 - len(text) % 4)
    try:
        expected = base64.b64decode(whole.encode("ascii"), validate=True)
    except ValueError:
        expected = b""
    if expected and len(whole) % 4 == 0:
        assert decoded(text, size, 1_000) == expected
    else:
        with pytest.raises(InvalidRequest) as refused:
            decoded(text, size, 1_000)
        assert refused.value.errors[0]["code"] == "invalid_base64"


def decoded(text: str, size: int, limit: int) -> bytes:
    """Decode a text that comes in pieces of `size` bytes; as a whole it means the same."""
    file, data = Base64File(limit), text.encode()
    for at in range(0, len(data), size):
        file.feed(data[at : at + size])
    found = file.file()
    assert Base64File.of(text, limit).file() == found
    return found
