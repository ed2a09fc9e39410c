"""`python -m tests.fuzz`: decode thousands of damaged images with the decoders of the worker.

Each image has to give a picture or an upres error within two seconds and the memory of a decoder (565 MiB of address
space), and no image may end the process that decodes it. Each image that breaks this rule is written into a folder, so
that it can become a test.
"""

import argparse
import io
import random
import secrets
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from tests.support.encoders import avif_encode, jpeg2k_encode, jpeg8_encode, jpegxl_encode, png_encode
from tests.support.heic_files import heic
from tests.support.paths import SAMPLES
from tests.support.tiff_files import written
from upres.core.errors import ImageError, UndecodableImage
from upres.core.formats import Holds
from upres.core.sizes import AS_IT_IS
from upres.worker.imaging.decoding import Decoders

MAX_PIXELS = 1_000_000
SECONDS = 2.0


def seeds() -> list[bytes]:
    """About forty small image files, of every format and kind that the decoders accept."""
    with Image.open(SAMPLES / "chelsea.png") as image:
        photo = image.convert("RGB").crop((130, 90, 194, 138))
    clear = photo.copy()
    clear.putalpha(Image.linear_gradient("L").resize(photo.size))
    pages = {"save_all": True, "append_images": [clear.convert("RGB")]}
    sixteen = Image.linear_gradient("L").resize((32, 32)).convert("I").point(lambda value: value * 257).convert("I;16")
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "x" * 40
    kinds: list[tuple[Image.Image, str, dict[str, Any]]] = [
        (photo, "PNG", {}), (clear, "PNG", {}), (photo.convert("P"), "PNG", {}), (photo.convert("L"), "PNG", {}),
        (photo.convert("1"), "PNG", {}), (sixteen, "PNG", {}), (photo, "PNG", pages),
        (photo, "JPEG", {"exif": exif}), (photo, "JPEG", {"progressive": True}), (photo.convert("L"), "JPEG", {}),
        (photo.convert("CMYK"), "JPEG", {}), (photo, "WEBP", {}), (clear, "WEBP", {"lossless": True}),
        (photo, "WEBP", pages), (photo, "AVIF", {}), (clear, "AVIF", {}),
        (photo, "TIFF", {}), (photo, "TIFF", {"compression": "tiff_lzw"}), (photo, "TIFF", {"compression": "jpeg"}),
        (photo.convert("1"), "TIFF", {"compression": "group4"}),
        (sixteen, "TIFF", {"compression": "tiff_adobe_deflate"}),
        (photo.convert("CMYK"), "TIFF", {}), (photo, "BMP", {}), (photo.convert("P"), "BMP", {}), (photo, "GIF", {}),
        (photo, "GIF", pages),
    ]  # fmt: skip
    return [_encoded(*kind) for kind in kinds] + _others(np.asarray(photo))


def _others(photo: npt.NDArray[np.uint8]) -> list[bytes]:
    """Files of the kinds that Pillow does not write."""
    deep = photo.astype(np.uint16) * 257
    tiffs = ("deflate", "lzw", "zstd", "lerc", "jpeg2000", "jpegxl", "webp")
    return [
        png_encode(deep), jpegxl_encode(photo, distance=1.0), jpegxl_encode(deep, lossless=True),
        jpeg2k_encode(photo, level=80), jpeg2k_encode(deep, codecformat="j2k", level=0, reversible=True),
        jpeg8_encode(deep >> 4, level=90, bitspersample=12),
        avif_encode(deep >> 6, bitspersample=10), heic(photo), heic(deep),
        *(written(photo, photometric="rgb", compression=name) for name in tiffs),
        written(deep.transpose(2, 0, 1), photometric="rgb", planarconfig="separate", bigtiff=True),
        written((deep / 65535).astype(np.float32), photometric="rgb", compression="deflate", predictor=True),
    ]  # fmt: skip


def _encoded(image: Image.Image, format: str, options: dict[str, Any]) -> bytes:
    out = io.BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


def _flip(rng: random.Random, data: bytearray) -> None:
    for _ in range(rng.choice((1, 1, 2, 8, 64))):
        data[rng.randrange(len(data))] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))


def _flip_header(rng: random.Random, data: bytearray) -> None:
    for _ in range(rng.choice((1, 2, 4))):
        data[rng.randrange(min(len(data), 200))] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))


def _number(rng: random.Random, data: bytearray) -> None:
    size = rng.choice((2, 4))
    value = rng.choice((0, 1, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1)) % 2 ** (8 * size)
    at = rng.randrange(max(1, min(len(data), 400) - size))
    data[at : at + size] = value.to_bytes(size, rng.choice(("big", "little")))


def _cut(rng: random.Random, data: bytearray) -> None:
    del data[rng.randrange(len(data)) :]


def _remove(rng: random.Random, data: bytearray) -> None:
    at = rng.randrange(len(data))
    del data[at : at + rng.randrange(1, 64)]


def _repeat(rng: random.Random, data: bytearray) -> None:
    at, length = rng.randrange(len(data)), rng.randrange(1, 256)
    data[at:at] = data[at : at + length] * rng.choice((1, 2, 100))


MUTATIONS: list[Callable[[random.Random, bytearray], None]] = [_flip, _flip_header, _number, _cut, _remove, _repeat]


def mutated(rng: random.Random, files: list[bytes]) -> bytes:
    """A copy of one of the files with one to three mutations."""
    data = bytearray(rng.choice(files))
    for mutation in rng.choices(MUTATIONS, k=rng.choice((1, 1, 2, 3))):
        if data:
            mutation(rng, data)
    return bytes(data)


def run(count: int, seed: int) -> tuple[Counter[str], list[tuple[str, bytes]]]:
    """Decode `count` mutated files; return the number of each outcome, and the findings with reason and file."""
    rng, files = random.Random(seed), seeds()
    outcomes: Counter[str] = Counter()
    findings: list[tuple[str, bytes]] = []
    decoders = Decoders(1, MAX_PIXELS)
    for _ in range(count):
        data = mutated(rng, files)
        begin = time.perf_counter()
        try:
            decoders.decode_all(data, MAX_PIXELS, "strip", AS_IT_IS, Holds(frames=True, pages=True))
            outcomes["picture"] += 1
        except UndecodableImage as error:
            outcomes[error.code] += 1
            if "memory" not in str(error):  # the child process ended or hung
                findings.append((str(error), data))
        except ImageError as error:
            outcomes[error.code] += 1
        except Exception as error:
            findings.append((repr(error), data))
        if time.perf_counter() - begin > SECONDS:
            findings.append((f"took {time.perf_counter() - begin:.1f} s", data))
    decoders.close()
    return outcomes, findings


def main() -> int:
    """Run the fuzzer; return exit code 1 if there are findings."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--count", type=int, default=20_000, help="mutations (default: 20000)")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6), help="which ones (default: new ones)")
    parser.add_argument("--out", type=Path, default=Path("build/fuzz"), help="where findings go")
    options = parser.parse_args()
    outcomes, findings = run(options.count, options.seed)
    print(f"seed {options.seed}: {options.count} mutations")
    for outcome, number in outcomes.most_common():
        print(f"{number:8}  {outcome}")
    for index, (reason, data) in enumerate(findings):
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / f"{options.seed}-{index}").write_bytes(data)
        print(f"finding {options.out}/{options.seed}-{index}: {reason}")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
