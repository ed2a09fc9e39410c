"""The number of frames or pages that an estimate counts is the one that a worker finds."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.animations import GifFrame, PngFrame, apng, gif
from tests.support.images import encoded
from tests.support.tiff_files import LONG, page, tiff
from upres.client import frame_count
from upres.core import formats
from upres.worker.imaging import images

NUMBERS = np.zeros((4, 4), np.uint8)
STILL = Image.new("RGB", (4, 4), "red")
OTHERS = [Image.new("RGB", (4, 4), colour) for colour in ("blue", "green")]
GRAY = np.zeros((4, 4, 1), np.uint8)
LEVELS = [bytes(16)]
THUMBNAIL = page(LEVELS, 4, 4, 8, 1, 1, tag_254=(LONG, [1]))
PAGE = page(LEVELS, 4, 4, 8, 1, 1)
FILES = {
    "gif": gif(4, 4, [GifFrame(NUMBERS, palette=np.zeros((4, 3), np.uint8))] * 3),
    "still gif": gif(4, 4, [GifFrame(NUMBERS)]),
    "cut gif": gif(4, 4, [GifFrame(NUMBERS)] * 3)[:-20],
    "png": apng([PngFrame(GRAY)] * 4),
    "hidden": apng([PngFrame(GRAY)] * 2, hidden=GRAY),
    "still png": encoded(STILL, "PNG"),
    "webp": encoded(STILL, "WEBP", save_all=True, append_images=OTHERS),
    "still webp": encoded(STILL, "WEBP"),
    "jpeg": encoded(STILL, "JPEG"),
    "avif": encoded(STILL, "AVIF", save_all=True, append_images=OTHERS),
    "pages": tiff(PAGE, PAGE, THUMBNAIL, PAGE),
    "thumbnail first": tiff(THUMBNAIL, PAGE, PAGE),
    "page below": tiff(THUMBNAIL, sub_ifds=[PAGE]),
    "thumbnail below": tiff(PAGE, sub_ifds=[THUMBNAIL]),
}


@pytest.mark.parametrize("name", FILES)
def test_frames_are_counted_as_a_worker_finds_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(formats, "PAGED", ("png",))
    (tmp_path / "file").write_bytes(FILES[name])
    for wanted in ("auto", "png", "gif", "jpeg"):
        found = images.decode_all(FILES[name], 1000, holds=formats.holds(wanted))
        assert frame_count.count(str(tmp_path / "file"), wanted) == len(found.frames)


def test_only_a_bounded_number_is_looked_at(tmp_path: Path) -> None:
    path = tmp_path / "a.gif"
    path.write_bytes(gif(1, 1, [GifFrame(NUMBERS[:1, :1])] * 3000))
    assert frame_count.count(str(path), "auto") == formats.MAX_FRAMES + 1
