"""Writes AVIF with 8 bits by Pillow (libavif, libaom).

kept       gray (as 4:0:0), alpha (without loss), ICC profile; of metadata EXIF and XMP
left out   IPTC, resolution, texts; 16 bits: libavif has 12, and Pillow 8

A file is never lossless: with quality 100 samples are up to 3 levels off, because Pillow converts RGB to YCbCr, which
rounds. Speed and quality were chosen on a photo enlarged by four (benchmarks/RESULTS.md): speed 9 takes 0.4 × the time
of 8, for files of the same size; with quality 85 the file is a tenth larger than a WebP of quality 90, and its
mean squared error is half as large.
"""

import io

from PIL import Image

from upres.core import cores
from upres.worker.imaging.picture import Picture
from upres.worker.imaging.result_file import ResultFile
from upres.worker.samples import Samples

QUALITY, SPEED = 85, 9
EXACT_ALPHA = {"alpha:lossless": "1"}
"""An option of libaom. Else opaque pixels beside an edge become 6 % transparent, and invisible ones visible."""


def write(pixels: Samples, picture: Picture, output: ResultFile) -> bytes:
    """Return the file of pixels (height, width, channels), of 8 bits."""
    image = Image.fromarray(pixels.squeeze(axis=2) if pixels.shape[2] == 1 else pixels)
    kept, file = picture.metadata, io.BytesIO()
    image.save(
        file,
        "AVIF",
        quality=output.quality or QUALITY,
        speed=SPEED,
        max_threads=cores.count(),
        advanced=EXACT_ALPHA,
        subsampling="4:0:0" if picture.channels == 1 else "4:4:4",
        icc_profile=picture.icc or b"",
        exif=kept.exif,
        xmp=kept.xmp,
    )
    return file.getvalue()
