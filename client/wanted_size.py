"""The wanted size of the results of a command: `--factor`, or `--width` and `--height` with `--fit`."""

import re

import click

from upres.client.output_paths import NAME
from upres.client.protocol import EstimateOptions, JobOptions
from upres.core import sizes
from upres.core.schema import Fit
from upres.core.sizes import MAX_FACTOR

DEFAULT_FACTOR = 4
BY_SIZE = "{stem}_{size}"
"""Default pattern of output names when a size is wanted."""
_NUMBER = re.compile(r"[0-9]+(\.[0-9]+)?")


def factor_of(context: click.Context, option: click.Parameter, given: str | None) -> int | float | None:
    """Return the factor that an option says, with at most four decimals. Raises click.BadParameter."""
    if given is None:
        return None
    if not (_NUMBER.fullmatch(given.strip()) and 1 <= float(given) <= MAX_FACTOR):
        raise click.BadParameter(f"{given!r} is not a number from 1 to {MAX_FACTOR}, such as 4 or 2.5.")
    return sizes.plain(float(given))


class SizeOptions:
    """The options of one command that say a size. Raises click.UsageError when they contradict each other."""

    def __init__(self, factor: float | None, width: int | None, height: int | None, fit: Fit) -> None:
        is_size = width is not None or height is not None
        if is_size and factor is not None:
            raise click.UsageError("Give --factor, or --width and --height; not both.")
        if fit == "exact" and (width is None or height is None):
            raise click.UsageError("--fit exact needs both --width and --height.")
        self.factor = None if is_size else factor or DEFAULT_FACTOR
        """Enlargement of each side; None when a size is wanted."""
        self._width, self._height, self._fit = width, height, fit

    def add_to(self, options: JobOptions | EstimateOptions) -> None:
        """Add a wanted size to the options of a request; with a factor nothing, since older servers know no sizes."""
        if self.factor is None:
            options["output_width"], options["output_height"] = self._width, self._height
            options["fit"] = self._fit

    @property
    def pattern(self) -> str:
        """The default pattern of output names."""
        return BY_SIZE if self.factor is None else NAME

    @property
    def name(self) -> str:
        """What names of results say: x4, x2.5, 1920x1080; w1920 or h1080 when the other side follows."""
        if self.factor is not None:
            return f"x{self.factor}"
        if self._width is None or self._height is None:
            return f"h{self._height}" if self._width is None else f"w{self._width}"
        return f"{self._width}x{self._height}"

    @property
    def result_options(self) -> dict[str, str]:
        """The options for the key under which a finished image is found; with a factor as in earlier ledgers."""
        if self.factor is not None:
            return {"factor": f"{self.factor}"}
        return {"factor": "", "size": f"{self.name} {self._fit}"}
