"""File names from outside stay in their folder on every system, for the names of results and of saved files."""

import ntpath
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from upres.client.output_paths import _parent
from upres.client.sources import Source
from upres.core import file_names
from upres.core.job_message import JobMessage
from upres.worker.stored_images import result_stem

NAMES = {
    "..\\..\\evil.png": "evil", "C:\\Windows\\evil.png": "evil", "C:evil.png": "evil", "../../x.y.png": "x.y",
    "\\\\host\\share\\a.png": "a", "a/b\\c.png": "c", "NUL.png": "_NUL", "com1": "_com1", "LPT².tar.gz": "_LPT².tar",
    "con .png": "_con", "nullable.png": "nullable", "ab:c.png": "ab_c", "photo?.png": "photo_", "x. . .png": "x",
    "..": "", ".": "", "": "", "a/": "", ".hidden": ".hidden", "a\u202egnp.png": "agnp", "a\0b\n.png": "ab",
    "C:": "", " a b .png": "a b",
}  # fmt: skip
PARTS = st.sampled_from(["..", "\\", "/", "C:", "nul", "com1", ".", " ", ":", "a", ".png", "\0", "é", "%5c", "$"])
TEXTS = st.lists(PARTS | st.text(max_size=5), max_size=12).map("".join)


def is_reserved(name: str) -> bool:
    """Whether Windows has another use for a name; Python 3.13 has a new function for it."""
    new: Callable[[str], bool] | None = getattr(ntpath, "isreserved", None)
    return new(name) if new else PureWindowsPath(name).is_reserved()


def job(**image: Any) -> JobMessage:
    now = datetime.now(UTC)
    return JobMessage(
        job_id="0" * 32, upscale_factor=2, model="m", model_version="1", model_digest="d", output_format="png",
        submitted_at=now, deadline=now, **image,
    )  # fmt: skip


@pytest.mark.parametrize(("text", "stem"), NAMES.items())
def test_the_stem_of_a_name_is_found_as_every_system_reads_it(text: str, stem: str) -> None:
    assert file_names.stem(text) == stem
    assert result_stem(job(image_key="uploads/x", image_name=text[:255] or " ")) == (stem or "0" * 32)


@given(TEXTS)
@example("..\\..\\evil.png")
def test_no_name_leaves_its_folder_on_any_system(text: str) -> None:
    url = f"https://example.org/{quote(text, safe='/')}"
    for name in (
        f"{file_names.stem(text) or 'x'}_x2.png",
        f"{result_stem(job(image_url=url))}_x2.png",
        Source(url).file_name,
        f"{_parent(url)}_x2.png",
    ):
        assert len(name.encode()) < 255
        for kind in (PurePosixPath, PureWindowsPath):
            assert kind("folder", name).parent == kind("folder")
            assert kind("folder", name).name == name
        assert not is_reserved(name)
        assert not set('<>:"|?*') & set(name)


@pytest.mark.parametrize("letter", ["x", "é", "語", "🖼"])
@pytest.mark.parametrize("beginning", ["", "v1.2 of "])
def test_long_names_are_shortened_to_a_beginning_and_a_digest_and_stay_different(letter: str, beginning: str) -> None:
    letters = letter * (240 // len(letter.encode()))
    texts = [f"{beginning}{letters}{end}.jpeg" for end in ("", "1", "2")]
    stems = [file_names.stem(text) for text in texts]
    assert len(set(stems)) == 3
    assert stems == [result_stem(job(image_key="uploads/x", image_name=text)) for text in texts]
    for text, stem in zip(texts, stems, strict=True):
        kept, _, digest = stem.rpartition("~")
        assert text.startswith(kept)
        assert len(digest) == 8
        assert 160 < len(stem.encode()) < 200
        assert len(f"bicubic_{stem}_x8.webp".encode()) < 255
        assert file_names.plain(text) == f"{stem}.jpeg"


def test_a_local_photo_keeps_the_name_that_its_system_gave_it() -> None:
    assert Source("folder/10:30.png").file_name == "10:30.png"
