"""Transparency: what is invisible changes nothing that is visible, and opaque areas stay opaque."""

import io
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from tests.support.engines import engine_of
from tests.support.images import encoded, opened
from tests.support.result_files import result_file
from upres.core.schema import OutputFormat
from upres.worker.engine.device_thread import DeviceThread
from upres.worker.engine.engine import Engine
from upres.worker.engine.planes import limited
from upres.worker.imaging import images
from upres.worker.imaging.bicubic import bicubic
from upres.worker.imaging.encode import Encoders
from upres.worker.imaging.picture import Picture, Pictures
from upres.worker.imaging.transparency import filled
from upres.worker.model import Model

pytestmark = pytest.mark.device
SIDE, FACTOR = 64, 4
ENCODERS = Encoders(jobs=1)
Array = np.ndarray


@pytest.fixture(scope="module")
def engine(model: Model) -> Iterator[Engine]:
    with engine_of(model, 48) as engine:
        yield engine


def disc(inside: tuple[int, ...], outside: tuple[int, ...], smooth: bool = True) -> Image.Image:
    """Draw a disc whose edge is antialiased in alpha only, or has no intermediate values."""
    y, x = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    share = np.clip(SIDE / 4 - np.hypot(x, y) + 0.5, 0, 1)
    alpha = share if smooth else np.round(share)
    colours = np.where(alpha[..., None] > 0, inside, outside)
    return Image.fromarray(np.concatenate([colours, np.round(alpha * 255)[..., None]], axis=2).astype(np.uint8))


def enlarged(engine: Engine, picture: Picture, format: OutputFormat) -> bytes:
    bands = engine.bands(picture.pixels, FACTOR)
    return ENCODERS.file(Pictures((picture,)), [result_file(picture, FACTOR, format)], bands)


def on_background(image: Image.Image, colour: tuple[int, ...]) -> Array:
    """Lay the image on a background as a browser does."""
    pixels = np.asarray(image.convert("RGBA"), float)
    share = pixels[..., 3:] / 255
    return pixels[..., :3] * share + np.asarray(colour) * (1 - share)


@pytest.mark.parametrize("smooth", [True, False])
@pytest.mark.parametrize("format", ["png", "webp", "jpeg"])
def test_a_white_disc_on_invisible_black_stays_white(engine: Engine, format: OutputFormat, smooth: bool) -> None:
    picture = images.decode(encoded(disc((255, 255, 255), (0, 0, 0), smooth), "PNG"), SIDE**2)
    output = result_file(picture, FACTOR, format)
    original = ENCODERS.file(Pictures((picture,)), [output], bicubic(picture.pixels, output.size))
    for file in (enlarged(engine, picture, format), original):
        assert 255 - on_background(opened(file), (255, 255, 255)).min() <= 2


def test_a_sprite_of_a_gif_stays_white(engine: Engine) -> None:
    sprite = encoded(disc((255, 255, 255), (0, 0, 0), smooth=False), "GIF")
    result = opened(enlarged(engine, images.decode(sprite, SIDE**2), "png"))
    assert 255 - on_background(result, (255, 255, 255)).min() <= 2


def test_the_edge_of_alpha_is_enlarged_by_the_network_and_the_areas_stay_as_they_are(engine: Engine) -> None:
    image = disc((200, 40, 40), (0, 0, 0))
    result = opened(enlarged(engine, images.decode(encoded(image, "PNG"), SIDE**2), "png"))
    alpha, given = np.asarray(result.getchannel("A")), np.asarray(image.getchannel("A"))
    assert (alpha[SIDE * 2 - 40 : SIDE * 2 + 40, SIDE * 2 - 40 : SIDE * 2 + 40] == 255).all()
    assert (alpha[:40] == 0).all()
    y, x = np.mgrid[: SIDE * FACTOR, : SIDE * FACTOR] - (SIDE * FACTOR - 1) / 2
    exact = np.clip(SIDE * FACTOR / 4 - np.hypot(x, y) + 0.5, 0, 1) * 255
    by_filter = next(iter(bicubic(np.dstack([given] * 4), (given.shape[1] * FACTOR, len(given) * FACTOR))))[..., 3]
    ours, theirs = (np.mean((one.astype(float) - exact) ** 2) for one in (alpha, by_filter))
    assert ours < theirs * 0.8


@pytest.mark.parametrize("smooth", [True, False])
def test_alpha_has_no_rings_beside_an_edge(engine: Engine, smooth: bool) -> None:
    image = disc((255, 255, 255), (0, 0, 0), smooth)
    result = opened(enlarged(engine, images.decode(encoded(image, "PNG"), SIDE**2), "png"))
    alpha = np.asarray(result.getchannel("A")).astype(int)
    middle = SIDE * FACTOR // 2
    for ray in (alpha[middle, middle:], alpha[middle, middle::-1], alpha[middle:, middle], alpha[middle::-1, middle]):
        assert np.diff(ray).max() <= 2, "it falls from the middle to the edge, and never rises again"


@given(arrays.arrays(np.uint8, (3, 4)), st.sampled_from([2, 4, 8]), st.data())
def test_enlarged_alpha_is_between_the_four_pixels_around_it(alpha: Array, factor: int, data: st.DataObject) -> None:
    made = data.draw(arrays.arrays(np.uint8, (3 * factor, 4 * factor)))
    result = limited(made, alpha, factor)
    for row, column in np.ndindex(result.shape):
        y, x = ((at + 0.5) / factor - 0.5 for at in (row, column))
        rows, columns = (
            [min(max(int(np.floor(at)) + more, 0), most) for more in (0, 1)] for at, most in ((y, 2), (x, 3))
        )
        around = alpha[np.ix_(rows, columns)]
        assert around.min() <= result[row, column] <= around.max()


@pytest.mark.parametrize("factor", [2, 8])
def test_alpha_of_one_value_is_the_same_value_afterwards(engine: Engine, factor: int) -> None:
    pixels = np.full((20, 24, 4), 90, np.uint8)
    for value in (0, 1, 254, 255):
        pixels[..., 3] = value
        assert (np.concatenate(list(engine.bands(pixels, factor)))[..., 3] == value).all()


def test_tiles_of_an_image_with_alpha_do_not_show(engine: Engine, model: Model) -> None:
    pixels = images.decode(encoded(disc((10, 200, 90), (0, 0, 0)), "PNG"), SIDE**2).pixels
    with DeviceThread() as thread:
        whole = Engine(model.manifest, engine.compute, thread).upscale(pixels, 2)
    assert np.abs(engine.upscale(pixels, 2).astype(int) - whole).max() <= 1


@given(
    arrays.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3))),
    st.data(),
)
def test_a_fill_changes_only_what_is_invisible_to_colours_that_are_there(colours: Array, data: st.DataObject) -> None:
    alpha = data.draw(arrays.arrays(np.uint8, colours.shape[:2], elements=st.sampled_from([0, 1, 255])))
    result, seen = filled(colours, alpha), alpha > 0
    assert (result[seen] == colours[seen]).all()
    if seen.any():
        assert (result >= colours[seen].min(axis=0)).all()
        assert (result <= colours[seen].max(axis=0)).all()
    else:
        assert (result == colours).all()


def test_colours_with_a_very_small_alpha_are_not_changed_by_the_original() -> None:
    pixels = np.full((16, 16, 4), (201, 77, 5, 1), np.uint8)
    assert (next(iter(bicubic(pixels, (pixels.shape[1] * 4, len(pixels) * 4)))) == pixels[0, 0]).all()


def test_a_lossless_webp_gives_a_lossless_webp() -> None:
    random = np.random.default_rng(1)
    image = Image.fromarray(random.integers(0, 256, (24, 20, 3), np.uint8))
    frames = {"save_all": True, "append_images": [image.rotate(180)]}
    for options in ({"lossless": True}, {"lossless": True, **frames}, {"quality": 90}, {"quality": 90, **frames}):
        picture = images.decode(encoded(image, "WEBP", **options), 1000)
        file = ENCODERS.file(Pictures((picture,)), [result_file(picture, 1, "webp")], [picture.pixels])
        result = np.asarray(Image.open(io.BytesIO(file)))
        assert (result == picture.pixels).all() == bool(options.get("lossless"))


def test_an_rgb_screentone_stays_neutral(engine: Engine) -> None:
    y, x = np.mgrid[:SIDE, :SIDE]
    dots = np.where((x + y) % 4 < 2, 230, 20).astype(np.uint8)
    picture = images.decode(encoded(Image.fromarray(np.dstack([dots] * 3)), "PNG"), SIDE**2)
    for format in ("png", "webp", "jpeg"):
        result = opened(enlarged(engine, picture, format))
        assert result.mode == "RGB"
        assert np.ptp(np.asarray(result).astype(int), axis=2).max() <= (0 if format == "png" else 2)
