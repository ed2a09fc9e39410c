"""Models whose author means harm: golden images, numbers in manifests, and graphs that name other files."""

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import psutil
import pytest
from onnx import TensorProto, helper, numpy_helper
from pydantic import ValidationError

from tests.support.pushing import FOLDER
from upres.core.errors import ModelError, ModelRefused
from upres.core.manifest import Manifest
from upres.core.onnx_graph import PARTS, check_self_contained
from upres.core.registry import digest, read_folder
from upres.worker import golden
from upres.worker.engine.engine import Engine
from upres.worker.imaging.decoding import Decoders
from upres.worker.model import Model

FIELDS: dict[str, Any] = json.loads((FOLDER / "manifest.json").read_text())
HUGE = 10**9


class NoEngine(Engine):
    """Fails the test when something is enlarged."""

    def __init__(self) -> None:
        pass


def bomb(width: int = 25_000, height: int = 25_000) -> bytes:
    """A small PNG file with many black pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4) + kind + data + zlib.crc32(kind + data).to_bytes(4)

    head = width.to_bytes(4) + height.to_bytes(4) + bytes([1, 0, 0, 0, 0])
    rows = zlib.compress(bytes((width // 8 + 1) * height), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def test_a_golden_image_with_many_pixels_is_refused_and_takes_no_memory(weights: Model, tmp_path: Path) -> None:
    (tmp_path / "bomb.png").write_bytes(bomb())
    model = weights._replace(files={**weights.files, "golden.png": tmp_path / "bomb.png"})
    before = psutil.Process().memory_info().rss
    with Decoders(1, golden.MAX_PIXELS) as decoders, pytest.raises(ModelRefused, match=r"golden\.png cannot"):
        golden.check(model, NoEngine(), decoders.decode)
    assert psutil.Process().memory_info().rss - before < 100 << 20


def test_a_golden_image_is_not_decoded_in_the_process_itself(weights: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import Image

    def here(*arguments: object, **options: object) -> None:
        raise AssertionError("decoded in the process that holds the credentials")

    class Copying(Engine):
        def __init__(self) -> None:
            pass

        def upscale(
            self, pixels: golden.Pixels, factor: int, on_tile: object = None, orientations: int = 1
        ) -> golden.Pixels:
            return np.repeat(np.repeat(pixels, factor, 0), factor, 1)

    with Decoders(1, golden.MAX_PIXELS) as decoders:
        decoders.start()
        monkeypatch.setattr(Image, "open", here)
        assert golden.measure_psnr(weights, Copying(), weights.manifest.golden[0], decoders.decode) > 15


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (("networks", 0, "parameters", "width"), HUGE), (("networks", 0, "parameters", "depth"), -1),
        (("networks", 0, "parameters"), {f"p{number}": 1 for number in range(50)}),
        (("networks", 0, "parameters"), {"x" * 1000: 1}), (("networks", 0, "factor"), HUGE),
        (("networks", 0, "receptive_radius"), HUGE), (("networks", 0, "receptive_radius"), 1000),
        (("networks", 0, "halo"), HUGE), (("networks", 0, "sides"), {"smallest": HUGE}),
        (("networks", 0, "sides"), {"multiple_of": HUGE}), (("networks", 0, "precisions"), ["float32"] * 100),
        (("networks", 0, "quality"), {f"q{number}": 1.0 for number in range(1000)}),
        (("networks", 0, "file"), "x" * 10_000 + ".onnx"), (("networks",), FIELDS["networks"] * 100),
        (("golden",), FIELDS["golden"] * 100), (("golden", 0, "factor"), HUGE), (("golden", 0, "least_psnr_db"), HUGE),
        (("description",), "x" * 10_000), (("licence",), "x" * 10_000), (("origin",), "x" * 10_000),
    ],
)  # fmt: skip
def test_every_number_and_list_of_a_manifest_has_an_upper_bound(field: tuple[str | int, ...], value: object) -> None:
    fields = json.loads(json.dumps(FIELDS))
    place = fields
    for name in field[:-1]:
        place = place[name]
    place[field[-1]] = value
    with pytest.raises(ValidationError):
        Manifest.model_validate(fields)


def endless(schema: Any, path: str = "") -> list[str]:
    """The places of a JSON schema that have no upper bound."""
    if isinstance(schema, list):
        return [one for part in schema for one in endless(part, path)]
    if not isinstance(schema, dict):
        return []
    bounds = {
        "string": {"maxLength", "enum", "const", "format", "pattern"}, "integer": {"maximum", "const", "enum"},
        "number": {"maximum"}, "array": {"maxItems"}, "object": {"maxProperties", "properties"},
    }  # fmt: skip
    needs = bounds.get(schema.get("type", "") if isinstance(schema.get("type"), str) else "")
    own = [path] if needs and not needs & schema.keys() else []
    return own + [one for name, part in schema.items() for one in endless(part, f"{path}/{name}")]


def test_the_schema_of_a_manifest_is_bounded_everywhere() -> None:
    found = endless(Manifest.model_json_schema())
    assert [path for path in found if "/quality/" not in path] == [], "measurements are only shown"


@pytest.mark.parametrize("file", ["manifest.json", "golden.png"])
def test_a_file_that_is_too_large_is_refused_unread(tmp_path: Path, file: str) -> None:
    for one in FOLDER.iterdir():
        (tmp_path / one.name).write_bytes(one.read_bytes())
    with (tmp_path / file).open("r+b") as large:
        large.truncate(8 << 30)  # a sparse file
    with pytest.raises(ModelError, match="has more than"):
        read_folder(tmp_path)


def graph(external: TensorProto | None = None) -> onnx.ModelProto:
    tensors = [external or numpy_helper.from_array(np.zeros(3, np.float32), "w")]
    nodes = [helper.make_node("Identity", ["w"], ["y"])]
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [3])
    return helper.make_model(helper.make_graph(nodes, "g", [], [y], tensors))


def outside() -> TensorProto:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[3], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="../models/another.safetensors")
    return tensor


def in_attribute() -> onnx.ModelProto:
    model = graph()
    model.graph.node.append(helper.make_node("Constant", [], ["c"], value=outside()))
    return model


def in_subgraph() -> onnx.ModelProto:
    model = graph()
    model.graph.node.append(helper.make_node("If", ["w"], ["c"], then_branch=graph(outside()).graph))
    return model


def in_function() -> onnx.ModelProto:
    model = graph()
    function = helper.make_function("d", "f", [], ["c"], [in_attribute().graph.node[1]], [])
    model.functions.append(function)
    return model


def in_sparse_tensor() -> onnx.ModelProto:
    model = graph()
    model.graph.sparse_initializer.add(values=outside(), dims=[3])
    return model


def location_only() -> onnx.ModelProto:
    tensor = numpy_helper.from_array(np.zeros(3, np.float32), "w")
    tensor.data_location = TensorProto.EXTERNAL
    return graph(tensor)


@pytest.mark.parametrize(
    "make", [lambda: graph(outside()), in_attribute, in_subgraph, in_function, in_sparse_tensor, location_only]
)
def test_a_graph_that_names_other_files_is_refused(make: Any) -> None:
    with pytest.raises(ModelError, match=r"x\.onnx keeps tensors in other files .* save the graph"):
        check_self_contained("x.onnx", make().SerializeToString())


def test_a_graph_that_is_split_or_damaged_is_read_as_protobuf_does() -> None:
    whole = graph(outside()).SerializeToString()
    with pytest.raises(ModelError, match="other files"):
        check_self_contained("x.onnx", graph().SerializeToString() + whole)  # protobuf merges two messages
    for damaged in (whole[:-3], b"\xff" * 20, b"\x3b\x3c", b"PK\x03\x04zip"):
        with pytest.raises(ModelError, match=r"no ONNX graph|other files"):
            check_self_contained("x.onnx", damaged)
    nested = b""
    for number in range(150):
        field = (6, 5, 1)[number % 3]  # of an attribute a graph, of a node an attribute, of a graph a node
        nested = bytes([field << 3 | 2]) + _varint(len(nested)) + nested
    with pytest.raises(ModelError, match="too deep"):
        check_self_contained("x.onnx", bytes([7 << 3 | 2]) + _varint(len(nested)) + nested)


def _varint(number: int) -> bytes:
    return bytes([number]) if number < 128 else bytes([number & 127 | 128]) + _varint(number >> 7)


def test_graphs_of_the_bundled_model_are_accepted() -> None:
    for file in FOLDER.glob("*.onnx"):
        check_self_contained(file.name, file.read_bytes())


def test_all_ways_to_a_tensor_in_onnx_are_known() -> None:
    """A release of ONNX may add a field that holds tensors; then PARTS needs it."""

    def leads_to_tensor(kind: Any, seen: frozenset[str] = frozenset()) -> bool:
        if kind.name == "TensorProto":
            return True
        parts = [field.message_type for field in kind.fields if field.message_type]
        return kind.name not in seen and any(leads_to_tensor(part, seen | {kind.name}) for part in parts)

    found: dict[str, dict[int, str]] = {}
    todo: list[Any] = [onnx.ModelProto.DESCRIPTOR]
    while todo:
        kind = todo.pop()
        if kind.name in found:
            continue
        fields = [field for field in kind.fields if field.message_type and leads_to_tensor(field.message_type)]
        found[kind.name] = {} if kind.name == "TensorProto" else {one.number: one.message_type.name for one in fields}
        todo += [one.message_type for one in fields] if kind.name != "TensorProto" else []
    assert found == PARTS


def test_a_version_with_an_external_graph_is_not_opened(tmp_path: Path) -> None:
    for one in FOLDER.iterdir():
        (tmp_path / one.name).write_bytes(one.read_bytes())
    hostile = graph(outside()).SerializeToString()
    (tmp_path / "edsr-x4.onnx").write_bytes(hostile)
    fields = json.loads(json.dumps(FIELDS))
    fields["networks"][0]["graph"]["sha256"] = digest(hostile)
    (tmp_path / "manifest.json").write_text(json.dumps(fields))
    with pytest.raises(ModelError, match="other files"):
        read_folder(tmp_path)
