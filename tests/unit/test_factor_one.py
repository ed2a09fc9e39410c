"""Networks with factor 1: their manifests, and their pixels alone and before an enlargement."""

from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from tests.support.cleaners import blur, imported
from tests.support.devices import equal, torch_on_it, under_test
from tests.support.paths import SAMPLES
from upres.core import registry
from upres.core.errors import InvalidRequest, ModelError
from upres.core.factors import Factors, check
from upres.core.manifest import Manifest
from upres.core.tiling import ORIENTATIONS
from upres.worker.engine.device_thread import DeviceThread
from upres.worker.engine.engine import Engine
from upres.worker.engine.runtimes import choose
from upres.worker.engine.steps import Steps
from upres.worker.model import Model
from upres.worker.samples import Samples, eight_bits, sixteen_bits

pytestmark = pytest.mark.device


@pytest.fixture(scope="module")
def cleaner(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return imported(tmp_path_factory.mktemp("cleaner"), "blur", blur())


@pytest.fixture(scope="module")
def device() -> Iterator[DeviceThread]:
    with DeviceThread() as thread:
        yield thread


@pytest.fixture(scope="module", params=["chosen", "torch"])
def engine(request: pytest.FixtureRequest, cleaner: Model, device: DeviceThread) -> Engine:
    chosen = request.param == "chosen"
    compute = choose(cleaner, under_test()) if chosen else torch_on_it(cleaner)
    return Engine(cleaner.manifest, compute, device, tile=40)


@pytest.fixture(scope="module")
def main(model: Model, device: DeviceThread) -> Engine:
    return Engine(model.manifest, choose(model, under_test()), device, tile=96)


@pytest.fixture(scope="module")
def coffee() -> Samples:
    with Image.open(SAMPLES / "coffee.png") as image:
        return np.asarray(image.convert("RGB").crop((200, 150, 256, 198)))


def blurred(pixels: Samples) -> np.ndarray:
    """The mean of 3 × 3 pixels; what is outside the image counts as black, as the network pads."""
    padded = np.pad(pixels.astype(float), ((1, 1), (1, 1), (0, 0)))
    rows, columns = pixels.shape[:2]
    mean: np.ndarray = np.mean([padded[y : y + rows, x : x + columns] for y in range(3) for x in range(3)], axis=0)
    return mean


def inner(pixels: Samples) -> np.ndarray:
    return pixels[5:-5, 5:-5].astype(float)


def test_only_manifests_with_factor_one_have_the_newer_schema(cleaner: Model, model: Model) -> None:
    fields = cleaner.manifest.model_dump()
    assert (fields["schema_version"], model.manifest.schema_version) == (3, 2)
    assert cleaner.manifest.factors == (1,)
    assert [one.factor for one in cleaner.manifest.golden] == [1]
    for changed in ({**fields, "schema_version": 2}, {**model.manifest.model_dump(), "schema_version": 3}):
        with pytest.raises(
            ValidationError, match="schema_version must be 4 with mix, 3 with a network of factor 1, else 2"
        ):
            Manifest.model_validate(changed)
    with pytest.raises(ModelError, match=r"a newer upres \(schema 5, here 4\)"):
        registry.parse(b'{"schema_version": 5}', "x")


def test_a_network_with_factor_one_is_no_part_of_other_factors(cleaner: Model, model: Model) -> None:
    both = {**model.manifest.model_dump(), "schema_version": 3}
    both["networks"] = [*cleaner.manifest.model_dump()["networks"], both["networks"][1]]
    manifest = Manifest.model_validate(both)
    assert manifest.factors == (1, 2, 4, 8)
    assert [[one.factor for one in manifest.chain(factor)] for factor in (1, 2, 4, 8)] == [[1], [2], [2, 2], [2, 2, 2]]
    assert cleaner.manifest.chain(2) == model.manifest.chain(1) == ()


def test_the_pixels_are_those_of_the_network_and_tiles_do_not_show(engine: Engine, coffee: Samples) -> None:
    tiled = engine.upscale(coffee, 1)
    assert tiled.shape == coffee.shape
    assert np.abs(inner(tiled) - inner(blurred(coffee))).max() <= 2  # half precision
    whole = Engine(engine.manifest, engine.compute, engine._thread, tile=1000).upscale(coffee, 1)
    assert engine.progress_at(coffee, 1, 0)[1] > 1
    assert np.abs(tiled.astype(int) - whole).max() <= 1
    bands = list(engine.bands(coffee, 1, first_row=33))
    assert equal(np.concatenate(bands), tiled[33:])


def test_flat_borders_stay_flat(engine: Engine) -> None:
    for value in (0, 130, 255):
        assert (engine.upscale(np.full((50, 60, 3), value, np.uint8), 1) == value).all()


def test_alpha_stays_as_it_is(engine: Engine, coffee: Samples) -> None:
    alpha = np.random.default_rng(0).integers(0, 256, (*coffee.shape[:2], 1), np.uint8)
    seen: list[tuple[int, int]] = []
    made = engine.upscale(np.dstack([coffee, alpha]), 1, lambda *tiles: seen.append(tiles))
    assert (made[..., 3:] == alpha).all()
    assert equal(made[..., :3], engine.upscale(coffee, 1))
    deep = sixteen_bits(np.dstack([coffee, alpha])) - np.uint16(7) * (alpha > 0)
    assert (engine.upscale(deep, 1)[..., 3] == deep[..., 3]).all()


def test_sixteen_bits_keep_their_levels(engine: Engine) -> None:
    y, x = np.mgrid[:60, :70]
    deep = np.dstack([((x * (3 - channel) + y * 90) * 8).astype(np.uint16) for channel in range(3)])
    made = engine.upscale(deep, 1)
    assert len(np.unique(made[..., 0])) >= len(np.unique(deep[..., 0])) > 1500
    assert np.abs(inner(made) - inner(deep)).max() <= 257, "the mean of a linear gradient is its middle"
    assert np.abs(inner(eight_bits(made)) - inner(engine.upscale(eight_bits(deep), 1))).max() <= 1


def test_the_ensemble_is_the_mean_of_eight_orientations(engine: Engine, coffee: Samples) -> None:
    made = engine.upscale(coffee, 1, orientations=ORIENTATIONS)
    assert np.abs(inner(made) - inner(blurred(coffee))).max() <= 2  # it is symmetric
    assert engine.progress_at(coffee, 1, 0, ORIENTATIONS)[1] == 8 * engine.progress_at(coffee, 1, 0)[1]


@pytest.mark.parametrize(("factor", "orientations"), [(1, 1), (1, ORIENTATIONS), (2, 1)])
def test_a_first_step_is_the_same_as_two_jobs(
    engine: Engine, main: Engine, coffee: Samples, factor: int, orientations: int
) -> None:
    """Its tiles are counted in one row, whether or not a checkpoint has the upper rows already."""
    alpha = np.arange(coffee.shape[0] * coffee.shape[1]).reshape(*coffee.shape[:2], 1).astype(np.uint8)
    pixels, last = np.dstack([coffee, alpha])[:, :44], main if factor > 1 else engine
    begun: list[Engine] = []
    counts: list[tuple[int, int]] = []
    steps = Steps(last, engine, begun.append)
    expected = last.upscale(engine.upscale(pixels, 1, orientations=orientations), factor, orientations=orientations)
    for first_row in (0, 39):
        begun.clear()
        counts.clear()
        done, total = steps.progress_at(pixels, factor, first_row, orientations)
        bands = steps.bands(pixels, factor, lambda *tiles: counts.append(tiles), first_row, None, orientations)
        assert equal(np.concatenate(list(bands)), expected[first_row:])
        assert counts == [(now, total) for now in range(done + 1, total + 1)]
        assert begun == [engine, last]
    assert (steps.tile, steps.first_tile) == (last.tile, engine.tile)


def test_steps_without_a_first_one_are_the_engine(main: Engine, coffee: Samples) -> None:
    begun: list[Engine] = []
    steps = Steps(main, on_step=begun.append)
    assert steps.progress_at(coffee, 2, 0) == main.progress_at(coffee, 2, 0)
    assert equal(np.concatenate(list(steps.bands(coffee, 2))), main.upscale(coffee, 2))
    assert (begun, steps.first_tile) == ([main], 0)


@pytest.mark.parametrize(
    ("wanted", "main", "first", "says"),
    [
        (4, (1,), None, "does not enlarge. Send upscale_factor 1; or name it in first_model"),
        (8, (2, 4), None, "'m' 1 enlarges by at most 4"),
        (4.5, (1, 4), None, "'m' 1 enlarges by at most 4"),
        (4, (4,), (2, 4), "first_model must have factor 1; model 'f' 2 enlarges by 2 or 4"),
    ],
)
def test_a_factor_that_a_model_does_not_have_is_refused_with_what_is_right(
    wanted: float, main: tuple[int, ...], first: tuple[int, ...] | None, says: str
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        check(wanted, Factors("m", "1", main), Factors("f", "2", first) if first else None)
    assert says in str(refused.value)
    assert refused.value.code == "unsupported_factor"
    assert refused.value.errors[0]["field"] == ("first_model" if first else "upscale_factor")
    check(wanted, Factors("m", "1", (8,)), Factors("f", "2", (1, 4)))
    check(1, Factors("m", "1", (2, 4)), None)  # what the network makes is made smaller
