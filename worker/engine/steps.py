"""The steps of a job: perhaps first a model with factor 1, such as a denoiser, then the enlargement."""

from collections.abc import Callable, Iterator

from upres.worker.engine.engine import Engine, OnPiece, OnTile
from upres.worker.samples import Samples

OnStep = Callable[[Engine], None]
"""Called with the engine of each step before the step begins."""


class Steps:
    """Enlarges the images of one job with one engine, or with two: `first` is applied to each whole image before.

    Its interface is that of Engine.
    """

    def __init__(self, main: Engine, first: Engine | None = None, on_step: OnStep = lambda engine: None) -> None:
        self._main, self._first, self._on_step = main, first, on_step

    @property
    def factors(self) -> tuple[int, ...]:
        """The factors by which the enlargement can be made."""
        return self._main.manifest.factors

    def strength(self, wanted: float | None) -> float | None:
        """The strength of the enlargement: `wanted`, or the model's default; None when it has none."""
        mix = self._main.manifest.mix
        return mix.strength if mix and wanted is None else wanted

    @property
    def tile(self) -> int:
        """Largest side of the enlargement's windows in input pixels."""
        return self._main.tile

    @property
    def first_tile(self) -> int:
        """The same for the first step; 0 without one."""
        return self._first.tile if self._first else 0

    def progress_at(self, pixels: Samples, factor: int, first_row: int, orientations: int = 1) -> tuple[int, int]:
        """Return how many tiles count as done when `bands` begins at an output row, and the number of both steps."""
        done, total = self._main.progress_at(pixels, factor, first_row, orientations)
        return done, total + self._first_tiles(pixels, orientations)

    def bands(
        self,
        pixels: Samples,
        factor: int,
        on_tile: OnTile = lambda done, total: None,
        first_row: int = 0,
        on_piece: OnPiece | None = None,
        orientations: int = 1,
    ) -> Iterator[Samples]:
        """Yield bands of the enlarged image. Arguments and errors are those of Engine.bands.

        Both steps have the same orientations, and `on_tile` counts the tiles of both. The first one is done whole, at
        any `first_row`, and leaves alpha as it is.
        """
        before = self._first_tiles(pixels, orientations)
        if self._first:
            done, total = self.progress_at(pixels, factor, first_row, orientations)
            self._on_step(self._first)
            pixels = self._first.upscale(pixels, 1, lambda now, of: on_tile(done + now, total), orientations)
        self._on_step(self._main)

        def on_main(now: int, of: int) -> None:
            on_tile(before + now, before + of)

        yield from self._main.bands(pixels, factor, on_main, first_row, on_piece, orientations)

    def _first_tiles(self, pixels: Samples, orientations: int) -> int:
        return self._first.progress_at(pixels, 1, 0, orientations)[1] if self._first else 0
