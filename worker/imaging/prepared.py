"""From the pictures of a file to what its result will be: sizes, limits, format. For the worker and `upres --local`."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from upres.core import formats
from upres.core.errors import ImageError
from upres.core.options import ResultOptions
from upres.core.schema import Depth
from upres.core.sizes import SizePlan, plan_size
from upres.worker.imaging.picture import Pictures
from upres.worker.imaging.result_file import ResultFile, fitted


class Prepared(NamedTuple):
    """The pictures of a file as their result can have them, and for each how it is enlarged and what it becomes."""

    pictures: Pictures
    plans: list[SizePlan]
    outputs: list[ResultFile]

    @property
    def output(self) -> ResultFile:
        """What the first picture, or the only one, becomes."""
        return self.outputs[0]

    @property
    def factors(self) -> list[int]:
        """The factor of the network for each picture."""
        return [plan.factor for plan in self.plans]

    @property
    def depth(self) -> Depth:
        """The most bits of a sample."""
        return max(one.depth for one in self.outputs)

    @property
    def given_pixels(self) -> int:
        """Number of pixels of all pictures together, as they are in the file."""
        return sum(width * height for width, height in self.pictures.sizes)

    @property
    def made_pixels(self) -> int:
        """Number of pixels of all pictures together, as the network makes them."""
        return sum(plan.made[0] * plan.made[1] for plan in self.plans)


def prepared(
    pictures: Pictures, wanted: ResultOptions, factors: Sequence[int], max_pixels: Callable[[int], int]
) -> Prepared:
    """Decide for each picture how it is enlarged, by one of a model's factors, and what it becomes.

    `max_pixels` returns the largest input in pixels for a factor. Raises NotAnEnlargement, EnlargementTooLarge or
    FormatLimit, which name the page if it is not the first; or TooManyPixels.
    """
    plans = [_plan(number, size, wanted, factors) for number, size in enumerate(pictures.sizes, 1)]
    formats.check_pictures(pictures.sizes, pictures.animated, max_pixels(max(plan.factor for plan in plans)))
    fitting, outputs = fitted(pictures, wanted, plans)
    return Prepared(fitting, plans, outputs)


def _plan(page: int, size: tuple[int, int], wanted: ResultOptions, factors: Sequence[int]) -> SizePlan:
    try:
        return plan_size(size, wanted.wanted_size, factors)
    except ImageError as error:
        if page == 1:
            raise
        raise formats.of_page(error, page) from error
