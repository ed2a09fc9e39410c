"""Animations and pages together with other options: quality, depth, durations, colour profiles."""

import errno
import io
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from PIL import Image

from tests.support.images import encoded
from tests.support.matrix_files import P3
from upres.core.errors import NotAnEnlargement, NotEncoded, UnsupportedImage
from upres.core.formats import Holds
from upres.core.job_message import JobMessage
from upres.core.options import ResultOptions
from upres.core.schema import OutputFormat
from upres.core.sizes import AS_IT_IS, SizePlan
from upres.worker.imaging import images
from upres.worker.imaging.decoding import Decoders
from upres.worker.imaging.encode import Encoders
from upres.worker.imaging.picture import Pictures
from upres.worker.imaging.prepared import prepared
from upres.worker.imaging.result_file import fitted
from upres.worker.imaging.writers.refusals import refused_by
from upres.worker.stored_images import kind_of_work

ENCODERS = Encoders(1)
HOLDS = Holds(frames=True, pages=True)
NOISE = np.random.default_rng(0).integers(0, 256, (2, 40, 60, 3), np.uint8)


def moving(format: str, **options: object) -> bytes:
    frames = [Image.fromarray(one) for one in NOISE]
    return encoded(frames[0], format, save_all=True, append_images=frames[1:], duration=100, **options)


def pages(*values: npt.NDArray[np.unsignedinteger], **options: object) -> bytes:
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        for one in values:
            writer.write(one, photometric="rgb", metadata=None, **options)  # type: ignore[arg-type]
    return file.getvalue()


def written(found: Pictures, **wanted: object) -> bytes:
    plans = [SizePlan(size, 1, size) for size in found.sizes]
    fitting, outputs = fitted(found, ResultOptions.model_validate(wanted), plans)
    return ENCODERS.file(fitting, outputs, [frame.pixels for frame in fitting.frames])


def test_a_moving_webp_has_the_wanted_quality() -> None:
    found = images.decode_all(moving("GIF"), 10**6)
    worst, usual, best = (
        len(written(found, output_format="webp", **options)) for options in ({"quality": 5}, {}, {"quality": 100})
    )
    assert worst < usual < best
    exact = Image.open(io.BytesIO(written(found, output_format="webp", lossless=True)))
    assert (np.asarray(exact.convert("RGB")) == found.first.pixels).all()
    lossless = images.decode_all(moving("WEBP", lossless=True), 10**6)
    kept, lossy = written(lossless), written(lossless, lossless=False)
    assert (b"VP8L" in kept, b"VP8L" in lossy) == (True, False)


def test_durations_that_are_too_long_for_a_format_are_a_named_error() -> None:
    found = images.decode_all(moving("GIF"), 10**6)
    long = Pictures(found.frames * 100, (2**24 - 1,) * 200)
    with pytest.raises(NotEncoded, match="webp"):
        written(long, output_format="webp")


def test_pages_stay_pages_with_16_bits() -> None:
    made = written(images.decode_all(pages(NOISE[0], NOISE[1]), 10**6), output_depth=16)
    with tifffile.TiffFile(io.BytesIO(made)) as tiff:
        assert [(one.aspage().shape, str(one.aspage().dtype)) for one in tiff.pages] == [((40, 60, 3), "uint16")] * 2


def test_profiles_of_pages_have_a_limit_together(decoders: Decoders) -> None:
    profile = encoded(Image.new("RGB", (1, 1)), "PNG") + bytes(2**19)
    data = pages(*[NOISE[0][:1, :1]] * 40, iccprofile=profile)
    with pytest.raises(UnsupportedImage, match="frames: first"):
        images.decode_all(data, 10**6)
    with pytest.raises(UnsupportedImage, match="frames: first"):
        decoders.decode_all(data, 10**6, "strip", AS_IT_IS, HOLDS)


def test_the_frames_of_an_animation_share_one_profile(decoders: Decoders) -> None:
    found = decoders.decode_all(moving("WEBP", icc_profile=P3), 10**6, "strip", AS_IT_IS, HOLDS)
    assert [frame.icc for frame in found.frames] == [P3, P3]
    assert found.frames[0].icc is found.frames[1].icc


def test_what_is_wrong_with_a_page_names_it() -> None:
    signed = io.BytesIO()
    with tifffile.TiffWriter(signed) as writer:
        writer.write(NOISE[0], photometric="rgb", metadata=None)
        writer.write(np.zeros((4, 4), np.int16), photometric="minisblack", metadata=None)
    with pytest.raises(UnsupportedImage, match=r"^Page 2: .*Or ask for frames: first\.$"):
        images.decode_all(signed.getvalue(), 10**6)
    found = images.decode_all(pages(NOISE[0][:20, :20], NOISE[1]), 10**6)
    with pytest.raises(NotAnEnlargement, match=r"^Page 2: The image already has 60×40 pixels.*frames: first\.$"):
        prepared(found, ResultOptions(output_width=30), (2, 4), lambda factor: 10**6)
    with pytest.raises(NotAnEnlargement, match=r"^The image already has 20×20") as first:
        prepared(found, ResultOptions(output_width=10), (2, 4), lambda factor: 10**6)
    assert first.value.__cause__ is None


def test_identical_work_is_told_apart_by_all_pages() -> None:
    deep = pages(NOISE[0], NOISE[1].astype(np.uint16) * 257)
    assert len({kind(deep), kind(deep, output_depth=8), kind(deep, output_depth=16)}) == 3
    sizes = pages(NOISE[0][:20, :20], NOISE[1][:40, :40])
    assert kind(sizes) != kind(sizes, output_width=80)
    assert kind(pages(NOISE[0], NOISE[1])) == "tiff+2 frames"


def kind(data: bytes, **wanted: object) -> str:
    now = datetime.now(UTC)
    options = ResultOptions.model_validate(wanted).model_dump()
    job = JobMessage(
        job_id="0" * 32, image_key="uploads/x", model="m", model_version="1", model_digest="d", submitted_at=now,
        deadline=now, **options,
    )  # fmt: skip
    task = prepared(images.decode_all(data, 10**6), job, (2, 4), lambda factor: 10**6)
    return kind_of_work(job, task.outputs, task.plans)


def test_a_single_frame_is_not_told_to_be_cut() -> None:
    still = moving("PNG", default_image=True)
    one = images.decode_all(still, 10**6, holds=Holds(frames=False, pages=False))
    two = images.decode_all(moving("GIF"), 10**6, holds=Holds(frames=False, pages=False))
    assert (one.left_out, two.left_out) == (None, "frames")


@pytest.mark.parametrize("format", ["gif", "tiff", "webp"])
def test_what_a_library_refuses_has_a_code(format: OutputFormat) -> None:
    with pytest.raises(NotEncoded, match=f"as {format}"), refused_by(format):
        raise OverflowError("too long")
    with pytest.raises(OSError, match="full"), refused_by(format):
        raise OSError(errno.ENOSPC, "full")
