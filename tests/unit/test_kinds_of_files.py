"""Telling the kinds of files apart; and the parts of GIF, WebP and BMP that Pillow alone does not read rightly."""

import struct

import numpy as np
import pytest
from PIL import Image

from tests.support.images import encoded
from upres.core.errors import NotAnImage, UnsupportedImage
from upres.worker.imaging import images
from upres.worker.imaging.readers import bmp, gif, webp

LIMIT = 10**6


@pytest.mark.parametrize("transparent", [False, True])
def test_around_a_gif_frame_that_is_smaller_than_its_canvas_all_is_transparent(transparent: bool) -> None:
    colours = Image.fromarray(np.array([[0, 1], [1, 0]], np.uint8), "P")
    colours.putpalette([255, 0, 0, 0, 0, 255])
    data = bytearray(encoded(colours, "GIF", **({"transparency": 1} if transparent else {})))
    frame = data.index(b"\x2c\0\0\0\0\x02\0\x02\0")
    data[frame + 1 : frame + 5] = struct.pack("<HH", 2, 1)
    data[6:10] = struct.pack("<HH", 5, 4)
    samples = gif.read(bytes(data), LIMIT).samples
    assert samples.shape == (4, 5, 4)
    outside = np.ones((4, 5), bool)
    outside[1:3, 2:4] = False
    assert (samples[outside][:, 3] == 0).all()
    assert samples[1, 2].tolist() == samples[2, 3].tolist() == [255, 0, 0, 255]
    assert samples[1, 3, 3] == samples[2, 2, 3] == (0 if transparent else 255)


def webp_chunk(name: bytes, content: bytes) -> bytes:
    return name + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)


@pytest.mark.parametrize("flags", [0x02, 0x12])
@pytest.mark.parametrize("canvas", [4, 8])
def test_around_a_webp_frame_that_is_smaller_than_its_canvas_all_is_transparent(flags: int, canvas: int) -> None:
    def u24(*numbers: int) -> bytes:
        return b"".join(struct.pack("<I", number)[:3] for number in numbers)

    pixels = encoded(Image.new("RGB", (4, 4), "red"), "WEBP", lossless=True)[12:]
    place = (canvas - 4) // 4  # in steps of two pixels
    frame = webp_chunk(b"ANMF", u24(place, place, 3, 3, 100) + b"\0" + pixels)
    header = webp_chunk(b"VP8X", bytes([flags, 0, 0, 0]) + u24(canvas - 1, canvas - 1))
    body = b"WEBP" + header + webp_chunk(b"ANIM", bytes(6)) + frame
    samples = webp.read(webp_chunk(b"RIFF", body), LIMIT).samples
    start = 2 * place
    assert (samples[start : start + 4, start : start + 4, :3] == [255, 0, 0]).all()
    if canvas > 4:
        assert samples[..., 3].sum() == 16 * 255
    elif flags == 0x02:
        assert samples.shape[2] == 3


@pytest.mark.parametrize("masks", [(0x3FF00000, 0xFFC00, 0x3FF, 0), (0xF00, 0xF0, 0xF, 0xF000)])
def test_bit_fields_that_pillow_does_not_know_are_refused_by_name(masks: tuple[int, ...]) -> None:
    bits = 16 if masks[0] == 0xF00 else 32
    info = struct.pack("<IiiHHIIiiII4I", 108, 2, 2, 1, bits, 3, 16, 1, 1, 0, 0, *masks) + bytes(52)
    data = b"BM" + struct.pack("<IHHI", 14 + 108 + 16, 0, 0, 14 + 108) + info + bytes(16)
    with pytest.raises(UnsupportedImage, match=f"{bits} bits per pixel"):
        bmp.read(data, LIMIT)


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"\0\0\0\x18ftypmp42\0\0\0\0isommp42", "video"), (b"8BPS\0\1", "Photoshop"), (b"v/1\x01\2\0\0\0", "OpenEXR"),
        (b"\0\0\0\x18ftypcrx \0\0\0\1crx isom", "RAW"), (b"IIU\0\x18\0\0\0", "RAW"), (b"FUJIFILMCCD-RAW", "RAW"),
        (b"II*\0\x10\0\0\0CR\2\0", "RAW"),
        (b"II\xbc\x01", "JPEG XR"), (b"\0\0\1\0\1\0", "ICO"), (b"%PDF-1.7", "PDF"),
    ],
)  # fmt: skip
def test_other_kinds_are_named(data: bytes, name: str) -> None:
    with pytest.raises(UnsupportedImage, match=name):
        images.decode(data, LIMIT)


def test_an_empty_file_is_called_empty() -> None:
    with pytest.raises(NotAnImage, match="The file is empty"):
        images.decode(b"", LIMIT)
