"""The size of a result, from what was wanted, and the network's factor with which it is made. Does no I/O.

The function's estimate, the decoder and the worker compute sizes with this module, so they agree to the pixel. All
arithmetic is in whole numbers; halves are rounded up.
"""

from collections.abc import Iterable
from typing import NamedTuple, Self

from upres.core.errors import EnlargementTooLarge, NotAnEnlargement

Size = tuple[int, int]
"""(width, height) in pixels."""
MAX_FACTOR = 8
"""Largest enlargement per side."""
UNITS = 10_000
"""Parts of 1 in which factors are counted: a factor has at most four decimals."""
MAX_SIDE = 1_000_000
"""Largest width or height in pixels that can be asked for."""


def in_units(factor: float) -> int:
    """Return a factor in ten-thousandths, rounded to a whole number."""
    return round(factor * UNITS)


def plain(factor: float) -> int | float:
    """Return a factor with at most four decimals; an int if it is a whole number, as 2, 4 and 8 were always stored."""
    whole, rest = divmod(in_units(factor), UNITS)
    return in_units(factor) / UNITS if rest else whole


class WantedSize(NamedTuple):
    """The size that a request wants: either `factor`, or `width` and `height`, of which one may be absent."""

    factor: float | None = None
    """Enlargement per side."""
    width: int | None = None
    height: int | None = None
    exact: bool = False
    """Whether the result has exactly `width` and `height`; else it has the image's proportions, and fits inside."""

    def packed(self) -> tuple[int, int, int, int]:
        """Return it as whole numbers, of which 0 stands for None."""
        return in_units(self.factor or 0), self.width or 0, self.height or 0, int(self.exact)

    @classmethod
    def unpacked(cls, units: int, width: int, height: int, exact: int) -> Self:
        """Return what was packed."""
        return cls(units / UNITS or None, width or None, height or None, bool(exact))

    def of(self, image: Size) -> Size:
        """Return the result's size for an image. Raises NotAnEnlargement when a side would become smaller."""
        result = self.size_for(image)
        if result[0] < image[0] or result[1] < image[1]:
            raise NotAnEnlargement(
                f"The image already has {image[0]}×{image[1]} pixels, and the result would have "
                f"{result[0]}×{result[1]}; upres only enlarges. Ask for a larger size."
            )
        return result

    def size_for(self, image: Size) -> Size:
        """Return the same without the check."""
        width, height = image
        if self.factor is not None:
            units = in_units(self.factor)
            return _rounded(width * units, UNITS), _rounded(height * units, UNITS)
        if self.exact and self.width and self.height:
            return self.width, self.height
        if self.width and (not self.height or self.width * height <= self.height * width):
            return self.width, max(1, _rounded(height * self.width, width))
        assert self.height
        return max(1, _rounded(width * self.height, height)), self.height

    def least_factor(self, factors: Iterable[int]) -> int:
        """Return the smallest of a model's factors that can suffice, as far as that is known without the image."""
        return next((one for one in sorted(factors) if one >= int(self.factor or 1)), MAX_FACTOR)


AS_IT_IS = WantedSize(factor=1)
"""The image's own size."""


class SizePlan(NamedTuple):
    """How an image is enlarged: by a network's factor, and then made smaller until it has the wanted size."""

    size: Size
    """Size of the result."""
    factor: int
    """Factor of the network, or of the chain of networks."""
    made: Size
    """Size that the network makes; not smaller than `size`."""


def plan_size(image: Size, wanted: WantedSize, factors: Iterable[int]) -> SizePlan:
    """Choose the smallest of a model's factors with which neither side is smaller than the result's.

    Raises NotAnEnlargement, or EnlargementTooLarge when no factor suffices.
    """
    size = wanted.of(image)
    for factor in sorted(factors):
        made = image[0] * factor, image[1] * factor
        if made[0] >= size[0] and made[1] >= size[1]:
            return SizePlan(size, factor, made)
    needed = max(size[0] / image[0], size[1] / image[1])
    raise EnlargementTooLarge(
        f"The result would have {size[0]}×{size[1]} pixels, for which this image of {image[0]}×{image[1]} would need "
        f"factor {needed:.4g}; this model enlarges by at most {max(factors, default=1)}. Ask for a smaller size."
    )


def ratio(image_width: int, result_width: int) -> int | float:
    """Return the enlargement of the width, with at most four decimals: the factor of a result whose size was given."""
    return plain(result_width / image_width)


def name(factor: float | None, size: Size) -> str:
    """Return what a result's file name says of its size: x4, x2.5, or 1920x1080 when not a factor was wanted."""
    return f"{size[0]}x{size[1]}" if factor is None else f"x{factor}"


def _rounded(dividend: int, divisor: int) -> int:
    return (2 * dividend + divisor) // (2 * divisor)
