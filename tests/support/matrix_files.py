"""The files of the matrix (file_matrix.py): one small picture in each kind of file, with all that a kind can have."""

import io
import struct
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageCms, PngImagePlugin

from tests.support.encoders import jpeg2k_encode, jpegxl_encode
from tests.support.heic_files import heic
from tests.support.images import encoded
from tests.support.tiff_files import written
from upres.worker.imaging.icc import SRGB_CURVE, Primaries, gray_profile, rgb_profile
from upres.worker.samples import Samples

WIDTH, HEIGHT, SEVERAL = 32, 24, 2
"""Size of the picture in pixels, and the number of frames or pages of those files that have several."""
P3 = rgb_profile(Primaries((0.3127, 0.3290), (0.68, 0.32), (0.265, 0.69), (0.15, 0.06)), SRGB_CURVE)
PACKET = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b'<rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:rights>Ada</dc:rights>'
    b"</rdf:Description></rdf:RDF></x:xmpmeta>"
)
IPTC_TITLE = b"\x1c\x02\x69\x00\x05Title"


def colours() -> npt.NDArray[np.float64]:
    """The picture, (height, width, 3) from 0 to 1 in sRGB: gradients that all formats can store."""
    across, down = np.meshgrid(np.linspace(0.1, 0.9, WIDTH), np.linspace(0.2, 0.8, HEIGHT))
    return np.dstack([across, down, 1 - across * 0.7])


def alpha() -> npt.NDArray[np.float64]:
    """(height, width, 1): opaque, but for a quarter at the right."""
    return np.repeat((np.arange(WIDTH) < WIDTH * 3 // 4).astype(float)[None], HEIGHT, axis=0)[..., None]


def samples(depth: int = 8, channels: int = 3) -> Samples:
    """The picture with samples of 8 bits, or of up to 16: gray or RGB (1 or 3 channels), with alpha (2 or 4)."""
    values = colours() if channels > 2 else colours().mean(axis=2, keepdims=True)
    values = np.dstack([values, alpha()]) if channels in (2, 4) else values
    made: Samples = np.rint(values * (2**depth - 1)).astype(np.uint8 if depth == 8 else np.uint16)
    return made


def linear(values: npt.NDArray[Any]) -> npt.NDArray[np.uint16]:
    """Samples of 16 bits in linear light: imagecodecs writes into JPEG XL files with 16 bits that they have it."""
    encoded_values = values / 65535
    light = np.where(encoded_values <= 0.04045, encoded_values / 12.92, ((encoded_values + 0.055) / 1.055) ** 2.4)
    made: npt.NDArray[np.uint16] = np.rint(light * 65535).astype(np.uint16)
    return made


def image(mode: str = "RGB", icc: bytes | None = None) -> Image.Image:
    """The picture as an image of 8 bits, in the colours of a profile."""
    made = Image.fromarray(samples(8, {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4}[mode]).squeeze())
    if icc:
        srgb = ImageCms.createProfile("sRGB")
        rgb = ImageCms.profileToProfile(made.convert("RGB"), srgb, io.BytesIO(icc))
        assert rgb
        made = Image.merge("RGBA", [*rgb.split(), made.getchannel("A")]) if mode == "RGBA" else rgb
    return made


def exif() -> Image.Exif:
    made = Image.Exif()
    made[ExifTags.Base.Make] = "Camera"
    made.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.ISOSpeedRatings] = 400
    return made


def with_texts() -> bytes:
    texts = PngImagePlugin.PngInfo()
    texts.add_text("Title", "A cat")
    texts.add_itxt("XML:com.adobe.xmp", PACKET.decode())
    return encoded(image("RGBA", P3), "PNG", icc_profile=P3, exif=exif(), dpi=(300, 300), pnginfo=texts)


def full_jpeg() -> bytes:
    resource = b"8BIM\x04\x04\0\0" + len(IPTC_TITLE).to_bytes(4, "big") + IPTC_TITLE
    segment = b"Photoshop 3.0\0" + resource
    iptc = b"\xff\xed" + (len(segment) + 2).to_bytes(2, "big") + segment
    more = {"exif": exif(), "xmp": PACKET, "dpi": (300, 300), "extra": iptc}
    return encoded(image("RGB", P3), "JPEG", quality=98, subsampling=0, icc_profile=P3, **more)


def full_tiff() -> bytes:
    tags: list[Any] = [(700, "B", len(PACKET), PACKET, True), (33723, "B", len(IPTC_TITLE), IPTC_TITLE, True)]
    tags.append((271, "s", 0, "Camera", True))
    made = np.asarray(image("RGBA", P3))
    return plain_tiff(made, extrasamples=["unassalpha"], iccprofile=P3, extratags=tags, resolution=(300, 300, 2))


def plain_tiff(values: npt.NDArray[Any], **options: Any) -> bytes:
    return written(
        values, **{"photometric": "rgb", "metadata": None, "software": False, "resolution": (72, 72, 2)} | options
    )


def by_pillow(format: str, mode: str = "RGBA", **options: Any) -> bytes:
    """A file with Display P3, EXIF and XMP."""
    options = options or {"quality": 98}
    return encoded(image(mode, P3), format, icc_profile=P3, exif=exif(), xmp=PACKET, **options)


def heic_with_metadata() -> bytes:
    return heic(np.asarray(image("RGBA", P3)), icc_profile=P3, exif=exif().tobytes(), xmp=PACKET)


def gray_profile_png() -> bytes:
    return encoded(image("L"), "PNG", icc_profile=gray_profile(SRGB_CURVE))


def box(name: bytes, content: bytes) -> bytes:
    return (len(content) + 8).to_bytes(4, "big") + name + content


def jxl_with_metadata() -> bytes:
    """JPEG XL in its container, with boxes for EXIF and XMP."""
    head = bytes.fromhex("0000000c4a584c200d0a870a") + box(b"ftyp", b"jxl \0\0\0\0jxl ")
    kept = box(b"Exif", bytes(4) + exif().tobytes().removeprefix(b"Exif\0\0")) + box(b"xml ", PACKET)
    return head + kept + box(b"jxlc", jpegxl_encode(samples(8, 4), lossless=True, usecontainer=False))


def jp2_with_metadata() -> bytes:
    """JPEG 2000 as JP2 (ISO/IEC 15444-1, Annex I), with a colour profile, and XMP in a box of its own type."""
    head = box(b"ihdr", struct.pack(">IIHBBBB", HEIGHT, WIDTH, 3, 7, 7, 0, 0)) + box(b"colr", b"\2\0\0" + P3)
    code = jpeg2k_encode(np.asarray(image("RGB", P3)), level=0, reversible=True, codecformat="j2k")
    start = box(b"jP  ", b"\r\n\x87\n") + box(b"ftyp", b"jp2 \0\0\0\0jp2 ") + box(b"jp2h", head)
    xmp = bytes.fromhex("be7acfcb97a942e89c71999491e3afac") + PACKET
    return start + box(b"jp2c", code) + box(b"uuid", xmp)


def moving(format: str, **options: Any) -> bytes:
    """SEVERAL frames or pages, of which the first is the picture."""
    others = [image().transpose(Image.Transpose.FLIP_LEFT_RIGHT)]
    return encoded(image(), format, save_all=True, append_images=others, **options)


def cmyk() -> bytes:
    return encoded(image().convert("CMYK"), "JPEG", quality=98)
