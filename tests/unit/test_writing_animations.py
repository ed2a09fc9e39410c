"""Animations as results: every frame, its pixels, durations and repetitions, read by another library."""

import struct

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageSequence

from tests.support.animations import GifFrame, PngFrame, apng, gif
from tests.support.images import encoded, opened
from tests.support.paths import SAMPLES
from upres.core.formats import Holds
from upres.core.options import ResultOptions
from upres.core.sizes import SizePlan
from upres.worker.imaging import images
from upres.worker.imaging.encode import Encoders
from upres.worker.imaging.picture import Picture, Pictures
from upres.worker.imaging.raster import MAX_PLAYS
from upres.worker.imaging.result_file import ResultFile, fitted

ENCODERS = Encoders(jobs=1)
LIMIT = 10**6
Pixels = npt.NDArray[np.uint8]
RGB: Pixels = np.random.default_rng(5).integers(0, 256, (3, 20, 30, 3), np.uint8)


def animation(frames: npt.NDArray[np.unsignedinteger], durations: tuple[int, ...], plays: int = 0) -> Pictures:
    shown = tuple(Picture(one, False, 3, None, "png", lossless=True) for one in frames)
    return Pictures(shown, durations, plays)


def as_large(pictures: Pictures, wanted: ResultOptions) -> tuple[Pictures, list[ResultFile]]:
    """The pictures of a result that is as large as the input, and what it is for each of them."""
    return fitted(pictures, wanted, [SizePlan(size, 1, size) for size in pictures.sizes])


def written(pictures: Pictures, format: str, rows: int = 7) -> bytes:
    """The file of a result that is as large as the input, written in bands of so many rows."""
    fitting, outputs = as_large(pictures, ResultOptions.model_validate({"output_format": format}))
    bands = [one.pixels[top : top + rows] for one in fitting.frames for top in range(0, one.size[1], rows)]
    return ENCODERS.file(fitting, outputs, bands)


def frames_of(data: bytes) -> list[Pixels]:
    return [np.asarray(frame.convert("RGBA")) for frame in ImageSequence.Iterator(opened(data))]


def durations_of(data: bytes) -> list[float]:
    found = []
    for frame in ImageSequence.Iterator(opened(data)):
        frame.load()  # Pillow knows the duration of a WebP frame then
        found.append(frame.info["duration"])
    return found


@pytest.mark.parametrize(("plays", "loop"), [(0, 0), (1, 1), (5, 5)])
@pytest.mark.parametrize("format", ["png", "webp"])
def test_frames_without_loss_keep_pixels_durations_and_plays(format: str, plays: int, loop: int) -> None:
    data = written(animation(RGB, (10, 33, 70_000), plays), format)
    assert (np.stack(frames_of(data))[..., :3] == RGB).all()
    assert durations_of(data) == [10, 33, 70_000]
    assert opened(data).info["loop"] == loop


@pytest.mark.parametrize(("plays", "loop"), [(0, 0), (1, None), (5, 4), (MAX_PLAYS, 65_535)])
def test_a_gif_keeps_durations_and_repetitions(plays: int, loop: int | None) -> None:
    data = written(animation(RGB, (40, 0, 100), plays), "gif")
    assert [frame.info.get("duration", 0) for frame in ImageSequence.Iterator(opened(data))] == [40, 0, 100]
    assert opened(data).info.get("loop") == loop
    assert images.decode_all(data, LIMIT).plays == plays


def test_durations_that_a_gif_cannot_have_keep_their_sum() -> None:
    again = images.decode_all(written(animation(RGB, (33, 33, 34)), "gif"), LIMIT)
    assert (sum(again.durations), len(again.durations)) == (100, 3)


def test_few_colours_are_kept_exactly_in_a_gif() -> None:
    levels = np.random.default_rng(6).integers(0, 16, (3, 20, 30, 3), np.uint8) // 3 * 51
    made = frames_of(written(animation(levels.astype(np.uint8), (10, 10, 10)), "gif"))
    assert (np.stack(made)[..., :3] == levels).all()


def test_a_photo_in_a_gif_is_dithered() -> None:
    with Image.open(SAMPLES / "chelsea.png") as image:
        photo = np.asarray(image.convert("RGB").crop((100, 50, 260, 170)))
    [made] = frames_of(written(animation(photo[None], ()), "gif"))
    error = made[..., :3].astype(float) - photo
    assert np.abs(error.reshape(-1, 4, 40, 4, 3).mean(axis=(1, 3))).mean() < 1.5  # as seen from some distance
    assert np.sqrt((error**2).mean()) < 8


def test_equal_frames_stay_and_small_changes_are_small_in_a_gif() -> None:
    moved = RGB[[0, 0, 0]].copy()
    moved[2, 5, 6] ^= 255
    pictures = animation(moved, (10, 20, 30))
    again = images.decode_all(data := written(pictures, "gif"), LIMIT)
    assert again.durations == (10, 20, 30)
    assert len(data) < 1.3 * len(written(animation(moved[:1], ()), "gif"))
    first, second, third = (frame.pixels.astype(int) for frame in again.frames)
    assert (first == second).all()
    assert np.argwhere((second != third).any(axis=2)).tolist() == [[5, 6]]


@pytest.mark.parametrize("format", ["gif", "png", "webp"])
def test_what_is_transparent_in_one_frame_only(format: str) -> None:
    moving = np.zeros((2, 20, 30, 4), np.uint8)
    moving[0, 2:8, 3:9] = moving[1, 9:15, 12:20] = (200, 100, 50, 255)
    shown = [one[..., 3] for one in frames_of(written(animation(moving, (50, 50)), format))]
    assert (np.stack(shown) == moving[..., 3]).all()


def test_an_animated_png_has_sixteen_bits_and_grays() -> None:
    deep = np.random.default_rng(7).integers(0, 65536, (2, 9, 8, 1)).astype(np.uint16)
    pictures = images.decode_all(apng([PngFrame(deep[0]), PngFrame(deep[1])]), LIMIT)
    data = written(pictures, "auto")
    assert struct.unpack(">BB", data[24:26]) == (16, 0)
    again = images.decode_all(data, LIMIT)
    assert all((one.pixels[..., :1] == frame).all() for one, frame in zip(again.frames, deep, strict=True))


def test_the_chunks_of_an_animated_png_are_numbered_and_none_is_empty() -> None:
    data = written(animation(RGB, (10, 10, 10)), "png")
    at, numbers, order = 8, list[int](), list[bytes]()
    while at < len(data):
        length, name = struct.unpack_from(">I4s", data, at)
        numbers += [int.from_bytes(data[at + 8 : at + 12], "big")] if name in (b"fcTL", b"fdAT") else []
        order += [name] if order[-1:] != [name] else []
        at += 12 + length
    assert numbers == list(range(len(numbers)))
    assert order[:4] == [b"IHDR", b"acTL", b"fcTL", b"IDAT"]


@pytest.mark.parametrize(
    ("data", "format"),
    [
        (gif(2, 2, [GifFrame(np.zeros((2, 2), np.uint8)), GifFrame(np.ones((2, 2), np.uint8))]), "gif"),
        (apng([PngFrame(RGB[0]), PngFrame(RGB[1])]), "png"),
        (encoded(Image.fromarray(RGB[0]), "WEBP", save_all=True, append_images=[Image.fromarray(RGB[1])]), "webp"),
        (gif(2, 2, [GifFrame(np.zeros((2, 2), np.uint8))]), "png"),
    ],
)  # fmt: skip
def test_an_animation_stays_what_it_is(data: bytes, format: str) -> None:
    _, outputs = as_large(images.decode_all(data, LIMIT), ResultOptions())
    assert {output.format for output in outputs} == {format}


def test_a_format_that_cannot_move_says_so() -> None:
    data = gif(2, 2, [GifFrame(np.zeros((2, 2), np.uint8)), GifFrame(np.ones((2, 2), np.uint8))])
    pictures, outputs = as_large(
        images.decode_all(data, LIMIT, holds=Holds(frames=False, pages=False)), ResultOptions(output_format="jpeg")
    )
    assert pictures.notices == ("JPEG cannot move; the result is the first frame. Ask for gif, webp or png.",)
    assert len(outputs) == 1


def test_missing_rows_are_an_error() -> None:
    for format in ("png", "gif"):
        pictures, outputs = as_large(animation(RGB, (1, 1, 1)), ResultOptions.model_validate({"output_format": format}))
        encoder = ENCODERS.open(pictures, outputs, list[bytes]().append)
        with pytest.raises(ValueError, match="missing"):
            encoder.finish()
