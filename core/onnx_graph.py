"""Checks an ONNX graph, and adds an output to it. Uses the file's protobuf encoding itself: workers lack package onnx.

ONNX lets a tensor name another file ("external data"), by a path next to the graph. In the cache of a worker that may
be a file of another model, so upres refuses it.
"""

import struct
from collections.abc import Iterator

from upres.core import weights
from upres.core.errors import ModelError
from upres.core.manifest import GRAPH_OUTPUT

PARTS: dict[str, dict[int, str]] = {
    "ModelProto": {7: "GraphProto", 20: "TrainingInfoProto", 25: "FunctionProto"},
    "GraphProto": {1: "NodeProto", 5: "TensorProto", 15: "SparseTensorProto"},
    "NodeProto": {5: "AttributeProto"},
    "AttributeProto": {
        5: "TensorProto", 6: "GraphProto", 10: "TensorProto", 11: "GraphProto",
        22: "SparseTensorProto", 23: "SparseTensorProto",
    },
    "SparseTensorProto": {1: "TensorProto", 2: "TensorProto"},
    "TrainingInfoProto": {1: "GraphProto", 2: "GraphProto"},
    "FunctionProto": {7: "NodeProto", 11: "AttributeProto"},
    "TensorProto": {},
}  # fmt: skip
"""Message of onnx.proto → number of a field → message in that field; all ways that lead to a tensor."""
EXTERNAL_DATA, DATA_LOCATION = 13, 14
"""Fields of TensorProto. Without external data neither is set, or DATA_LOCATION is 0."""
DATA_TYPE, NAME, RAW_DATA = 2, 8, 9
NUMBERS = (4, RAW_DATA, 10)
"""More fields of TensorProto: type, name, and the numbers, little endian, in one of three fields."""
FLOATS: dict[object, weights.Format] = {
    1: weights.FLOAT32,
    10: weights.FLOAT16,
    11: weights.FLOAT64,
    16: weights.BFLOAT16,
}
"""Values of DATA_TYPE for floating-point numbers."""
GRAPH, NODE, INITIALIZER, OUTPUT = 7, 1, 5, 12
"""Fields of ModelProto (GRAPH) and GraphProto."""
SUM = "upres_sum"
"""Output that `with_sum` adds to a graph."""
SCALE = 2.0**-24
"""Factor of each number in that sum, so that it stays small enough for float16."""
KEEPS_FINITE = {"Cast", "Clip", "Min", "Max", "Round", "Identity", "Transpose", "Reshape", "QuantizeLinear"}
"""Operators between a network's numbers and its bytes."""
MAX_DEPTH = 100
"""Deepest nesting of messages; protobuf's own limit."""
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
"""Wire types of protobuf (https://protobuf.dev/programming-guides/encoding/)."""


def check(name: str, data: bytes) -> None:
    """Raise ModelError when the file is no ONNX graph, or when a tensor is in another file or not finite."""
    check_self_contained(name, data)
    for initializer in _graph(memoryview(data), INITIALIZER):
        fields = dict(_fields(initializer))
        kind = next((FLOATS.get(value) for number, value in fields.items() if number == DATA_TYPE), None)
        for numbers in (fields.get(number) for number in NUMBERS):
            if kind and isinstance(numbers, memoryview) and len(numbers) > kind.size:  # one may be a limit of Clip
                weights.check(name, _text(fields.get(NAME)), numbers, kind)


def with_sum(data: bytes) -> bytes:
    """Return the graph with one more output, SUM: the sum of its output's numbers before they become bytes, scaled.

    It is finite only if all of them are. Bytes that follow a protobuf message are merged into it, so the new nodes are
    appended. A graph whose output is computed in another way than upres's exports is returned unchanged.
    """
    made_by = {}
    for node in _graph(memoryview(data), NODE):
        fields = list(_fields(node))
        inputs, outputs, kinds = ([_text(value) for number, value in fields if number == which] for which in (1, 2, 4))
        made_by.update(dict.fromkeys(outputs, (kinds[0] if kinds else "", inputs)))
    at, passed = GRAPH_OUTPUT, set()
    while at in made_by and made_by[at][0] in KEEPS_FINITE and made_by[at][1]:
        passed.add(made_by[at][0])
        at = made_by[at][1][0]
    if not passed & {"Cast", "QuantizeLinear"}:
        return data
    scale = _field(2, 1) + _field(RAW_DATA, struct.pack("<f", SCALE)) + _field(NAME, b"upres_scale")
    added = (
        _field(INITIALIZER, scale)
        + _field(NODE, _node("Mul", [at, "upres_scale"], "upres_scaled"))
        + _field(NODE, _node("ReduceSum", ["upres_scaled"], SUM))
        + _field(OUTPUT, _field(1, SUM.encode()))
    )
    return data + _field(GRAPH, added)


def initializers(data: bytes | bytearray) -> Iterator[tuple[str, object, memoryview | None]]:
    """Yield name, data type and numbers of a graph's tensors, as views of `data`; None: they are no raw data.

    Raises ValueError or IndexError when the file is no protobuf.
    """
    for initializer in _graph(memoryview(data), INITIALIZER):
        fields = dict(_fields(initializer))
        numbers = fields.get(RAW_DATA)
        yield _text(fields.get(NAME)), fields.get(DATA_TYPE), numbers if isinstance(numbers, memoryview) else None


def check_self_contained(name: str, data: bytes) -> None:
    """Raise ModelError when a tensor of the graph is in another file, or when the file is no protobuf."""
    found = [("ModelProto", memoryview(data), 0)]
    try:
        while found:
            kind, message, depth = found.pop()
            if depth > MAX_DEPTH:
                raise ValueError("nested too deep")
            for number, value in _fields(message):
                if kind == "TensorProto" and (number == EXTERNAL_DATA or (number == DATA_LOCATION and value)):
                    raise ModelError(
                        f"{name} keeps tensors in other files (ONNX external data), which is not allowed: "
                        "save the graph with all tensors inside, by onnx.save(model, path)."
                    )
                if (part := PARTS[kind].get(number)) and isinstance(value, memoryview):
                    found.append((part, value, depth + 1))
    except (ValueError, IndexError) as error:
        raise ModelError(f"{name} is no ONNX graph ({error}).") from error


def _graph(data: memoryview, wanted: int) -> Iterator[memoryview]:
    """Yield the messages in one field of the graph. Raises ValueError or IndexError when the file is no protobuf."""
    for number, graph in _fields(data):
        if number == GRAPH and isinstance(graph, memoryview):
            yield from (value for field, value in _fields(graph) if field == wanted and isinstance(value, memoryview))


def _text(value: memoryview | int | None) -> str:
    return bytes(value).decode(errors="replace") if isinstance(value, memoryview) else ""


def _node(kind: str, inputs: list[str], output: str) -> bytes:
    """Encode a NodeProto without attributes."""
    return b"".join(_field(1, one.encode()) for one in inputs) + _field(2, output.encode()) + _field(4, kind.encode())


def _field(number: int, value: bytes | int) -> bytes:
    """Encode a field of a message."""
    if isinstance(value, int):
        return _encoded(number << 3 | VARINT) + _encoded(value)
    return _encoded(number << 3 | BYTES) + _encoded(len(value)) + value


def _encoded(value: int) -> bytes:
    """Encode an integer of variable length."""
    made = bytearray()
    while value > 0x7F:
        made.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(made) + bytes([value])


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview | int]]:
    """Yield the fields of a message: number, and its bytes or its integer. Raises ValueError or IndexError."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        number, wire = tag >> 3, tag & 7
        if wire == VARINT:
            value, at = _varint(message, at)
            yield number, value
            continue
        if wire == BYTES:
            size, at = _varint(message, at)
        elif wire in (FIXED64, FIXED32):
            size = 8 if wire == FIXED64 else 4
        else:
            raise ValueError(f"wire type {wire}")
        if size > len(message) - at:
            raise ValueError("cut off")
        if wire == BYTES:
            yield number, message[at : at + size]
        at += size


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """Return an integer of variable length, and the position after it. Raises ValueError or IndexError."""
    value = 0
    for shift in range(0, 70, 7):
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("an integer is too long")
