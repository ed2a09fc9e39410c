"""Mixed versions: weights between those of a base and a version's own, in all runtimes, and in the manifest."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tests.support import mixable
from tests.support.devices import equal, torch_on_it
from tests.support.engines import engine_of
from upres.core import registry
from upres.core.errors import InvalidRequest, ModelError
from upres.core.manifest import Manifest
from upres.core.options import ResultOptions
from upres.core.settings import Settings
from upres.core.strength import pinned
from upres.models import bundled, export, inprocess, mixing
from upres.models.folder import photo
from upres.worker import golden
from upres.worker.engine import graphs, loading
from upres.worker.engine.compute import Compute
from upres.worker.engine.device import choose
from upres.worker.engine.onnx_compute import OnnxCompute
from upres.worker.engine.openvino_compute import OpenVinoCompute
from upres.worker.imaging.decoding import Decoders
from upres.worker.model import Model, open_folder


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Model, Model]:
    return mixable.pair(tmp_path_factory.mktemp("pair"))


@pytest.fixture(scope="module")
def with_graphs(pair: tuple[Model, Model], tmp_path_factory: pytest.TempPathFactory) -> tuple[Model, Model]:
    """The same pair, with ONNX graphs."""
    to = tmp_path_factory.mktemp("graphs")
    for number, model in enumerate(pair):
        if number:
            base = open_folder(to / "plain" / "1-onnx")
            model = mixable.write(to, "strong", 2, base)
        export.export(model, "onnx", to / model.manifest.name / "1-onnx")
    return open_folder(to / "plain" / "1-onnx"), open_folder(to / "strong" / "1-onnx")


@given(st.floats(0, 1))
def test_a_strength_is_rounded_to_tenths(wanted: float) -> None:
    found = ResultOptions(strength=wanted).strength
    assert found is not None
    assert abs(found - wanted) <= 0.05 + 1e-9
    assert found in [number / 10 for number in range(11)]


@pytest.mark.parametrize("wrong", [-0.1, 1.01, float("nan"), True, "much", "1.5", [], {}])
def test_other_strengths_are_refused(wrong: object) -> None:
    with pytest.raises(ValidationError, match="from 0 to 1"):
        ResultOptions(strength=wrong)


def test_the_default_strength_is_the_same_whether_or_not_it_is_named() -> None:
    assert pinned(None, "m", "1", 0.5) is pinned(0.5, "m", "1", 0.5) is None
    assert pinned(0.0, "m", "1", 0.5) == 0.0
    assert pinned(None, "m", "1", None) is None
    with pytest.raises(InvalidRequest, match="'m' 1 has no strength"):
        pinned(0.0, "m", "1", None)


@given(st.integers(0, 10))
def test_mixed_weights_lie_between_and_are_exact_at_both_ends(tenths: int) -> None:
    own, base = mixable.weights(2, 2), mixable.weights(2, 1)
    found = loading.mixed("w", own, base, tenths / 10)
    for name, tensor in found.items():
        low, high = torch.minimum(own[name], base[name]), torch.maximum(own[name], base[name])
        assert bool(((low - 1e-6 <= tensor) & (tensor <= high + 1e-6)).all())
        if tenths in (0, 10):
            assert torch.equal(tensor, (own if tenths else base)[name])


def test_weights_of_other_shapes_or_names_are_not_mixed() -> None:
    own = mixable.weights(2, 2)
    for base in (mixable.weights(4, 1), {"other": torch.zeros(1), **own}, {}):
        with pytest.raises(ModelError, match="other names or shapes"):
            loading.mixed("w", own, base, 0.5)


def run(compute: Compute, factor: int) -> np.ndarray:
    return compute.start(factor, [photo(40, 48)])()


@pytest.mark.device
@pytest.mark.parametrize("factor", [2, 4])
def test_the_ends_are_the_base_and_the_own_weights_in_every_runtime(
    with_graphs: tuple[Model, Model], factor: int, tmp_path: Path
) -> None:
    base, strong = with_graphs
    for make in (
        torch_on_it,
        lambda model: OpenVinoCompute(model, tmp_path),
        lambda model: OnnxCompute(model, choose("cpu")),
    ):
        made = [run(make(strong.at(strength)), factor).astype(int) for strength in (0.0, 0.4, 1.0)]
        assert np.array_equal(made[0], run(make(base), factor))
        assert np.array_equal(made[1], run(make(strong), factor)), "0.4 is the default"
        assert all(np.abs(one - other).max() > 5 for one, other in pairwise(made)), "the ends differ"
        alone = strong._replace(base=None)
        assert np.array_equal(made[2], run(make(alone), factor))


@pytest.mark.device
def test_all_runtimes_compute_the_same_mix(
    with_graphs: tuple[Model, Model], pair: tuple[Model, Model], tmp_path: Path
) -> None:
    at = with_graphs[1].at(0.7)
    wanted = run(torch_on_it(at), 2).astype(int)
    converted = OpenVinoCompute(pair[1].at(0.7), tmp_path)  # no graphs: converted from the mixed torch module
    for compute in (OpenVinoCompute(at, tmp_path), OnnxCompute(at, choose("cpu")), converted):
        assert np.abs(run(compute, 2) - wanted).max() <= 1
    other = OpenVinoCompute(pair[1].at(0.1), tmp_path)
    assert np.abs(run(other, 2) - wanted).max() > 5, "the cache of converted networks keeps strengths apart"


def test_a_graph_of_another_network_is_not_mixed(with_graphs: tuple[Model, Model]) -> None:
    base, strong = with_graphs
    files = [model.files[f"{model.manifest.name}-x{factor}.onnx"] for model, factor in ((base, 2), (strong, 4))]
    with pytest.raises(ModelError, match="another size"):
        graphs.mixed("g", files[1].read_bytes(), files[0].read_bytes(), 0.5)


def test_a_graph_that_stores_weights_in_another_way_is_not_mixed(with_graphs: tuple[Model, Model]) -> None:
    """Otherwise its own weights would run at every strength."""
    base, strong = (model.files[f"{model.manifest.name}-x2.onnx"].read_bytes() for model in with_graphs)
    numbers, renamed = onnx.load_from_string(strong), onnx.load_from_string(strong)
    weights = max(numbers.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    weights.float_data.extend(onnx.numpy_helper.to_array(weights).ravel().tolist())
    weights.ClearField("raw_data")
    with pytest.raises(ModelError, match="is not float32 or float16 in raw data"):
        graphs.mixed("g", numbers.SerializeToString(), base, 0.5)
    renamed.graph.initializer[0].name = "other"
    with pytest.raises(ModelError, match="their tensors have other names"):
        graphs.mixed("g", renamed.SerializeToString(), base, 0.5)


def fields(model: Model) -> dict[str, object]:
    return model.manifest.model_dump(mode="json")


def test_a_manifest_with_a_base_has_a_schema_of_its_own(pair: tuple[Model, Model]) -> None:
    base, strong = pair
    assert (base.manifest.schema_version, strong.manifest.schema_version) == (2, 4)
    for changed in ({"schema_version": 2}, {"mix": None}, {"mix": {**fields(strong)["mix"], "strength": 0.45}}):  # type: ignore[dict-item]
        with pytest.raises(ValidationError):
            Manifest.model_validate({**fields(strong), **changed})


def test_a_folder_names_its_missing_or_changed_base(pair: tuple[Model, Model], tmp_path: Path) -> None:
    _base, _strong = pair
    mixable.pair(tmp_path)
    folder = tmp_path / "strong" / "1"
    assert open_folder(folder).base is not None
    (tmp_path / "plain").rename(tmp_path / "gone")
    with pytest.raises(ModelError, match=r"mixed with model 'plain' 1, which is neither in .*base nor in .*plain/1"):
        open_folder(folder)
    (tmp_path / "gone" / "1").rename(folder / registry.BASE)
    assert open_folder(folder).base is not None
    mixable.write(tmp_path / "other", "plain", 3)
    (folder / registry.BASE).rename(tmp_path / "away")
    (tmp_path / "other" / "plain" / "1").rename(folder / registry.BASE)
    with pytest.raises(ModelError, match="plain 1 is not the version that strong 1 was made with"):
        open_folder(folder)


@pytest.mark.device
def test_mixing_two_models_makes_an_ordinary_one(pair: tuple[Model, Model], tmp_path: Path) -> None:
    _base, strong = pair
    one, two = (tmp_path / "ends" / name / "1" for name in ("plain", "other"))
    for path, seed in ((one, 1), (two, 2)):
        mixable.write(tmp_path / "ends", path.parent.name, seed)
    made = mixing.mix(one, two, 0.4, {"name": "both", "version": "1"}, tmp_path / "both")
    assert (made.base, made.strength, made.manifest.schema_version) == (None, None, 2)
    assert made.manifest.description == "40% of other 1 in plain 1."
    with engine_of(made, 640) as mine, engine_of(strong, 640) as theirs:
        difference = mine.upscale(photo(40, 48), 2).astype(int) - theirs.upscale(photo(40, 48), 2)
    assert np.abs(difference).max() <= 1
    adjustable = mixing.mix_adjustable(one, two, 0.37, {"name": "both", "version": "1"}, tmp_path / "adjustable")
    assert (adjustable.strength, open_folder(tmp_path / "adjustable").at(0.0).strength) == (0.4, 0.0)
    with pytest.raises(ModelError, match="both 1 is mixed already"):
        mixing.mix(one, tmp_path / "adjustable", 0.5, {"name": "x", "version": "1"}, tmp_path / "x")


def test_models_of_other_architectures_are_not_mixed(model: Model, tmp_path: Path) -> None:
    mixable.write(tmp_path, "plain", 1)
    faithful = model.files["edsr-x4.safetensors"].parent
    with pytest.raises(
        ModelError, match=r"one architecture and factor can be mixed \(plain 1: edsr width 8 depth 1 ×2,"
    ):
        mixing.mix(faithful, tmp_path / "plain" / "1", 0.5, {"name": "x", "version": "1"}, tmp_path / "x")


@pytest.mark.device
def test_the_default_model_is_bundled_with_its_base(model: Model, decoders: Decoders) -> None:
    """Servers and `--local` have the same default; the golden images show its default strength."""
    assert Settings().model == inprocess.DEFAULT
    default = open_folder(list(bundled.versions(inprocess.DEFAULT).values())[-1])
    assert default.base is not None
    assert default.base.digest == model.digest
    assert default.manifest.factors == (2, 4, 8)
    with engine_of(default, 640) as engine:
        golden.check(default, engine, decoders.decode)
    for strength in (0.0, 0.3, 1.0):
        with engine_of(default.at(strength), 640) as engine:
            golden.check(default.at(strength), engine, decoders.decode)
    with engine_of(default.at(0.0), 640) as mixed, engine_of(model, 640) as faithful:
        for factor in (2, 4):
            assert equal(mixed.upscale(photo(40, 48), factor), faithful.upscale(photo(40, 48), factor))
