"""Checks that an ONNX graph contains its weights. Reads the file's protobuf encoding itself: workers lack package onnx.

ONNX lets a tensor name another file ("external data"), by a path next to the graph. In the cache of a worker that may
be a file of another model, so upres refuses it.
"""

from collections.abc import Iterator

from upres.core.errors import ModelError

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
MAX_DEPTH = 100
"""Deepest nesting of messages; protobuf's own limit."""
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
"""Wire types of protobuf (https://protobuf.dev/programming-guides/encoding/)."""


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
