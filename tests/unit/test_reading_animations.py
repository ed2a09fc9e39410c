"""Animated GIF, PNG and WebP: what is visible during each frame, how long, how often; and what is refused."""

import struct
import time
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from tests.support.animations import COLOURS, GifFrame, PngFrame, apng, gif, gif_block, of_colours
from tests.support.encoders import avif_encode
from tests.support.images import encoded
from tests.support.png_files import chunk, of_samples
from upres.core.errors import ImageError, TooManyPixels, TruncatedImage
from upres.core.formats import MAX_FRAMES, Holds
from upres.worker.imaging import images
from upres.worker.imaging.picture import Pictures

LIMIT = 10**6
SIDE = 6
Pixels = npt.NDArray[np.uint8]
BACK: Pixels = np.random.default_rng(1).integers(0, 4, (SIDE, SIDE), np.uint8)
PATCH: Pixels = np.array([[1, 2, 3], [3, 0, 1]], np.uint8)
CLEAR = np.zeros((SIDE, SIDE, 4), np.uint8)


def read(data: bytes) -> Pictures:
    return images.decode_all(data, LIMIT)


def with_patch(canvas: Pixels, patch: Pixels, left: int, top: int) -> Pixels:
    """A canvas with a patch over it; where the patch is transparent, the canvas stays."""
    made = canvas.copy()
    place = made[top : top + len(patch), left : left + patch.shape[1]]
    place[patch[..., 3] > 0] = patch[patch[..., 3] > 0]
    return made


def is_shown(pictures: Pictures, expected: Sequence[Pixels]) -> bool:
    """Whether frames are as expected; colours do not matter where alpha is 0."""
    for frame, canvas in zip(pictures.frames, expected, strict=True):
        alpha = np.full(frame.pixels.shape[:2], 255) if frame.alpha is None else frame.alpha
        same = (frame.pixels[..., :3] == canvas[..., :3]).all(axis=2) | (canvas[..., 3] == 0)
        if not ((alpha == canvas[..., 3]).all() and same.all()):
            return False
    return True


PATCHED = with_patch(of_colours(BACK), of_colours(PATCH), 2, 3)
HOLED = with_patch(of_colours(BACK), of_colours(PATCH, 1), 2, 3)
CUT = of_colours(BACK)
CUT[3:5, 2:5] = 0


@pytest.mark.parametrize(
    ("disposal", "transparent", "second", "third"),
    [
        (0, None, PATCHED, PATCHED), (1, None, PATCHED, PATCHED), (2, None, PATCHED, CUT),
        (3, None, PATCHED, of_colours(BACK)), (4, None, PATCHED, of_colours(BACK)), (7, None, PATCHED, PATCHED),
        (0, 1, HOLED, HOLED), (2, 1, HOLED, CUT), (3, 1, HOLED, of_colours(BACK)),
    ],
)  # fmt: skip
def test_frames_of_a_gif_are_disposed_of_as_in_browsers(
    disposal: int, transparent: int | None, second: Pixels, third: Pixels
) -> None:
    last = GifFrame(np.zeros((1, 1), np.uint8))
    data = gif(SIDE, SIDE, [GifFrame(BACK), GifFrame(PATCH, 2, 3, 5, disposal, transparent), last])
    pictures = read(data)
    third = with_patch(third, of_colours(np.zeros((1, 1), np.uint8)), 0, 0)
    assert is_shown(pictures, [of_colours(BACK), second, third])
    assert pictures.first.format == "gif"
    assert {one.pixels.shape for one in pictures.frames} == {pictures.first.pixels.shape}


def test_a_first_frame_of_a_gif_that_is_small_or_disposed_of_leaves_transparency() -> None:
    pictures = read(gif(SIDE, SIDE, [GifFrame(PATCH, 1, 1, disposal=2), GifFrame(PATCH, 3, 4)]))
    first, second = (with_patch(CLEAR, of_colours(PATCH), *place) for place in ((1, 1), (3, 4)))
    assert is_shown(pictures, [first, second])
    restored = read(gif(SIDE, SIDE, [GifFrame(PATCH, 1, 1, disposal=3), GifFrame(PATCH, 3, 4)]))
    assert is_shown(restored, [first, second])


def test_frames_of_a_gif_have_palettes_of_their_own_and_may_leave_the_canvas() -> None:
    own = COLOURS[::-1].copy()
    pictures = read(gif(SIDE, SIDE, [GifFrame(BACK), GifFrame(BACK, palette=own), GifFrame(PATCH, 4, 5)]))
    reversed_ = of_colours((3 - BACK).astype(np.uint8))
    assert is_shown(pictures, [of_colours(BACK), reversed_, with_patch(reversed_, of_colours(PATCH)[:1, :2], 4, 5)])


@pytest.mark.parametrize(("loop", "plays"), [(None, 1), (0, 0), (1, 2), (7, 8)])
def test_durations_and_repetitions_of_a_gif(loop: int | None, plays: int) -> None:
    pictures = read(gif(SIDE, SIDE, [GifFrame(BACK, delay=delay) for delay in (0, 1, 3, 6000)], loop))
    assert (pictures.durations, pictures.plays) == ((0, 10, 30, 60_000), plays)


def test_a_gif_of_grays_stays_gray() -> None:
    grays = np.arange(0, 256, 64).astype(np.uint8)[:, None].repeat(3, axis=1)
    pictures = read(gif(SIDE, SIDE, [GifFrame(BACK, palette=grays), GifFrame(BACK[::-1].copy(), palette=grays)]))
    assert {(one.gray, one.channels) for one in pictures.frames} == {(True, 1)}


RGBA: Pixels = np.random.default_rng(2).integers(0, 256, (SIDE, SIDE, 4), np.uint8)
PART: Pixels = np.random.default_rng(3).integers(0, 256, (2, 3, 4), np.uint8)


def over(below: Pixels, part: Pixels) -> Pixels:
    """The formula of W3C PNG, section 13.16, on the place of a part."""
    made = below.astype(float)
    place = made[3:5, 2:5]
    above, alpha = part.astype(float), part[..., 3:] / 255
    total = alpha + place[..., 3:] / 255 * (1 - alpha)
    colours = (above[..., :3] * alpha + place[..., :3] * (place[..., 3:] / 255) * (1 - alpha)) / np.maximum(total, 1e-9)
    place[:] = np.concatenate([colours, total * 255], axis=2)
    return made.round().astype(np.uint8)


@pytest.mark.parametrize("disposal", [0, 1, 2])
@pytest.mark.parametrize("blend", [0, 1])
def test_frames_of_a_png_are_blended_and_disposed_of(disposal: int, blend: int) -> None:
    last = PngFrame(RGBA[:1, :1] | 255)
    pictures = read(apng([PngFrame(RGBA), PngFrame(PART, 2, 3, disposal=disposal, blend=blend), last]))
    replaced, cleared = RGBA.copy(), RGBA.copy()
    replaced[3:5, 2:5], cleared[3:5, 2:5] = PART, 0
    second = over(RGBA, PART) if blend else replaced
    third = {0: second, 1: cleared, 2: RGBA}[disposal].copy()
    third[0, 0] = 255
    assert is_shown(pictures, [RGBA, second, third])


def test_the_still_image_of_a_png_may_be_no_frame() -> None:
    shown = (RGBA | np.uint8(255), RGBA[::-1] | np.uint8(1), RGBA)
    frames = [PngFrame(one, duration=(1, 3)) for one in shown[:2]] + [PngFrame(RGBA, duration=(7, 0))]
    pictures = read(apng(frames, plays=3, hidden=RGBA * 0))
    assert is_shown(pictures, shown)
    assert (pictures.durations, pictures.plays) == ((333, 334, 70), 3)
    alone = read(apng(frames[:1], hidden=RGBA * 0))
    assert (len(alone.frames), alone.animated) == (1, False)
    assert is_shown(alone, [shown[0]])


def test_an_animated_png_keeps_sixteen_bits_and_grays() -> None:
    deep = np.random.default_rng(4).integers(0, 65536, (SIDE, SIDE, 1)).astype(np.uint16)
    pictures = read(apng([PngFrame(deep), PngFrame(deep[:2, :3], 1, 1)]))
    second = deep.copy()
    second[1:3, 1:4] = deep[:2, :3]
    assert [one.channels for one in pictures.frames] == [1, 1]
    assert (pictures.frames[1].pixels[..., :1] == second).all()


@pytest.mark.parametrize("lossless", [True, False])
def test_an_animated_webp(lossless: bool) -> None:
    stills = [Image.fromarray(RGBA), Image.fromarray(RGBA[::-1].copy()), Image.fromarray(RGBA)]
    data = encoded(
        stills[0],
        "WEBP",
        save_all=True,
        append_images=stills[1:],
        duration=[0, 35, 20],
        loop=4,
        lossless=lossless,
        exact=True,
    )
    pictures = read(data)
    assert (pictures.durations, pictures.plays, pictures.first.format) == ((0, 35, 20), 4, "webp")
    assert pictures.first.lossless == lossless
    if lossless:
        assert is_shown(pictures, [np.asarray(one) for one in stills])


def test_only_the_first_frame_is_read_if_the_result_has_one() -> None:
    data = gif(SIDE, SIDE, [GifFrame(BACK), GifFrame(PATCH)])
    first = images.decode_all(data, LIMIT, holds=Holds(frames=False, pages=True))
    assert (len(first.frames), first.left_out, first.first.format) == (1, "frames", "png")
    assert (images.decode(data, LIMIT).pixels == first.first.pixels).all()
    assert images.decode_all(gif(SIDE, SIDE, [GifFrame(BACK)]), LIMIT).left_out is None


def test_the_pixels_of_all_frames_together_are_limited() -> None:
    for data in (
        gif(500, 500, [GifFrame(PATCH)] * 5), apng([PngFrame(np.zeros((500, 500, 1), np.uint8))] * 5),
    ):  # fmt: skip
        with pytest.raises(TooManyPixels, match=r"5 frames of 500×500, 1\.2 megapixels together.*frames: first"):
            images.decode_all(data, LIMIT)
        assert images.decode(data, LIMIT).size == (500, 500)


def test_a_small_file_with_many_frames_costs_nothing() -> None:
    one = gif_block(GifFrame(np.zeros((1, 1), np.uint8)))
    many = gif(1, 1, [])[:-1] + one * 100_000 + b";"
    still = of_samples(np.zeros((1, 1, 1), np.uint8))
    claims = still[:33] + chunk(b"acTL", struct.pack(">II", 2**31, 0)) + still[33:]
    frame = b"ANMF" + struct.pack("<I", 16) + bytes(16)
    webp = b"WEBPVP8X" + struct.pack("<I", 10) + bytes([2, *[0] * 9]) + frame * 100_000
    for data in (many, claims, b"RIFF" + struct.pack("<I", len(webp)) + webp):
        begin = time.process_time()
        with pytest.raises(TooManyPixels, match=f"more than {MAX_FRAMES:,} frames"):
            images.decode_all(data, LIMIT)
        assert time.process_time() - begin < 1


def test_frames_that_are_much_larger_than_the_canvas_are_not_decoded() -> None:
    data = bytearray(gif(SIDE, SIDE, [GifFrame(BACK), GifFrame(BACK)]))
    struct.pack_into("<HH", data, data.rindex(b"\x2c" + bytes(4)) + 5, 13_000, 13_000)
    with pytest.raises(TruncatedImage, match="much larger"):
        read(bytes(data))


def files() -> list[bytes]:
    stills = [Image.fromarray(RGBA[..., :3].repeat(4, axis=0) // shade) for shade in (1, 2, 3)]
    webp = encoded(stills[0], "WEBP", save_all=True, append_images=stills[1:], lossless=True)
    return [
        gif(SIDE, SIDE, [GifFrame(BACK), GifFrame(PATCH, 1, 1), GifFrame(PATCH)]),
        apng([PngFrame(RGBA), PngFrame(PART), PngFrame(PART, 1, 1)]),
        webp,
    ]


@pytest.mark.parametrize("data", files(), ids=["gif", "png", "webp"])
def test_of_a_cut_animation_the_sound_frames_remain_with_a_notice(data: bytes) -> None:
    counts = set()
    for length in range(40, len(data)):
        try:
            pictures = images.decode_all(data[:length], LIMIT)
        except ImageError:
            continue
        counts.add(len(pictures.frames))
        if len(pictures.frames) < 3 and pictures.first.format != "png":
            assert pictures.notices[0].startswith("The file is incomplete or damaged; the result has its first ")
    assert {1, 2} <= counts


def test_a_damaged_frame_ends_an_animation() -> None:
    data = bytearray(files()[1])
    data[data.index(b"fdAT", data.index(b"fdAT") + 4) + 12] ^= 255
    pictures = read(bytes(data))
    assert (len(pictures.frames), len(pictures.notices)) == (2, 1)


def test_an_animation_whose_frames_are_lost_is_the_still_image() -> None:
    still = of_samples(RGBA)
    pictures = read(still[:33] + chunk(b"acTL", struct.pack(">II", 3, 0)) + still[33:])
    assert (len(pictures.frames), pictures.animated) == (1, False)
    assert (pictures.first.pixels[..., 3] == RGBA[..., 3]).all()


def test_of_an_animated_avif_there_is_the_first_frame_and_a_notice() -> None:
    frames = np.stack([RGBA[..., :3].repeat(4, 0).repeat(4, 1)] * 2)
    stills = [Image.fromarray(one) for one in frames]
    pictures = read(encoded(stills[0], "AVIF", save_all=True, append_images=stills[1:]))
    assert len(pictures.frames) == 1
    assert pictures.notices == ("Animated AVIF is not supported; this is its first frame.",)
    assert read(avif_encode(frames[0])).notices == ()
