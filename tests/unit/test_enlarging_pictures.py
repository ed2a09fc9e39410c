"""The frames of an animation and the pages of a file, enlarged one after the other, also from a checkpoint."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.support.engines import engine_of
from upres.core import tiling
from upres.worker.engine.engine import Engine
from upres.worker.engine.steps import Steps
from upres.worker.enlarging import Enlargement
from upres.worker.imaging.picture import Picture, Pictures
from upres.worker.model import Model
from upres.worker.samples import Samples

FACTOR = 2


def picture(height: int, width: int, seed: int, deep: bool = False) -> Picture:
    values = np.random.default_rng(seed).integers(0, 65536 if deep else 256, (height, width, 3))
    return Picture(values.astype(np.uint16 if deep else np.uint8), False, 3, None, "png")


SAME = picture(20, 24, 1)
PAGES = Pictures((SAME, SAME, SAME, picture(100, 30, 2), picture(12, 30, 3, deep=True)))


@pytest.fixture(scope="module")
def whole(engine: Engine) -> list[Samples]:
    """All bands of PAGES."""
    return bands(Enlargement(Steps(engine), PAGES, [FACTOR] * len(PAGES.frames)), Told())


@pytest.fixture(scope="module")
def engine(model: Model) -> Iterator[Engine]:
    with engine_of(model, 64) as running:
        yield running


class Told:
    """What callbacks were told."""

    def __init__(self) -> None:
        self.tiles: list[tuple[int, int]] = []
        self.frames: list[int] = []

    def tile(self, done: int, total: int) -> None:
        self.tiles.append((done, total))


def bands(enlargement: Enlargement, told: Told, first_row: int = 0) -> list[Samples]:
    return list(enlargement.bands(told.tile, told.frames.append, first_row))


def test_each_picture_is_as_if_it_were_alone_and_equal_ones_are_enlarged_once(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[object] = []
    bands_of_one = Engine.bands

    def counted(*given: Any) -> Iterator[Samples]:
        calls.append(given)
        return bands_of_one(*given)

    monkeypatch.setattr(Engine, "bands", counted)
    told, enlargement = Told(), Enlargement(Steps(engine), PAGES, [FACTOR] * len(PAGES.frames))
    made = bands(enlargement, told)
    monkeypatch.undo()
    assert len(calls) == 3
    row = 0
    for top, end, frame in zip(enlargement.tops, enlargement.tops[1:], PAGES.frames, strict=False):
        own = []
        while row < end:
            own.append(made.pop(0))
            row += len(own[-1])
        assert row == end
        assert (np.concatenate(own) == engine.upscale(frame.pixels, FACTOR)).all()
        assert enlargement.kind_at(top).shape == (end - top, frame.size[0] * FACTOR, 3)
    assert told.frames == [1, 2, 3, 4, 5]
    total = enlargement.progress_at(0)[1]
    assert [done for done, _ in told.tiles] == list(range(1, total + 1))
    assert {of for _, of in told.tiles} == {total}


@pytest.mark.parametrize("at", ["in the first", "at the second", "in a repeated one", "in the large one", "at the end"])
def test_it_continues_at_any_row(engine: Engine, whole: list[Samples], at: str) -> None:
    enlargement = Enlargement(Steps(engine), PAGES, [FACTOR] * len(PAGES.frames))
    tops = enlargement.tops
    row = {
        "in the first": 10, "at the second": tops[1], "in a repeated one": tops[1] + 8,
        "in the large one": tops[3] + 110, "at the end": tops[-1],
    }[at]  # fmt: skip
    told = Told()
    rest = bands(enlargement, told, row) if row < tops[-1] else []
    skipped = row
    for band in whole:
        part = band[min(skipped, len(band)) :]
        skipped -= min(skipped, len(band))
        while len(part):
            assert (part[: len(rest[0])] == rest[0]).all()
            part = part[len(rest.pop(0)) :]
    assert not rest
    done, total = enlargement.progress_at(row)
    assert told.tiles[-1:] in ([], [(total, total)])
    assert done == (0 if row == 10 else done)
    assert told.tiles[:1] in ([], [(done + 1, total)])
    assert len(told.frames) == sum(top > row for top in tops[1:])


def test_a_smaller_tile_in_the_middle_does_not_make_progress_fall(engine: Engine) -> None:
    told, enlargement = (
        Told(),
        Enlargement(Steps(engine), Pictures((picture(100, 30, 2), picture(100, 30, 4))), [FACTOR] * 2),
    )
    total = enlargement.progress_at(0)[1]
    tile = engine.tile
    running = enlargement.bands(told.tile, told.frames.append)
    next(running)
    engine.limits.tile = tiling.smallest(engine.manifest)
    list(running)
    engine.limits.tile = tile
    done = [one for one, _ in told.tiles]
    assert done == sorted(done)
    assert done[-1] == total


def test_tiles_that_shrink_before_the_first_one_count_from_one(engine: Engine) -> None:
    told, tile = Told(), engine.tile
    engine.limits.tile = 640
    enlargement = Enlargement(Steps(engine), Pictures((picture(300, 30, 2),)), [FACTOR])
    total = enlargement.progress_at(0)[1]
    engine.limits.tile = tiling.smallest(engine.manifest)
    list(enlargement.bands(told.tile, told.frames.append))
    engine.limits.tile = tile
    done = [one for one, _ in told.tiles]
    assert len(done) > total
    assert (min(done), max(done)) == (1, total)


def test_pictures_that_are_not_computed_are_counted(engine: Engine) -> None:
    enlargement = Enlargement(Steps(engine), PAGES, [FACTOR] * len(PAGES.frames))
    bands(enlargement, Told())
    assert enlargement.repeated == 2
    gray = picture(8, 6, 0)
    mixed = Pictures(
        (replace(gray, pixels=np.zeros((6, 8, 3), np.uint8)), replace(gray, pixels=np.zeros((6, 8, 3), np.uint16)))
    )
    kinds = [band.dtype for band in bands(Enlargement(Steps(engine), mixed, [FACTOR] * 2), Told())]
    assert kinds == [np.uint8, np.uint16]
