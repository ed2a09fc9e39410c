"""The sizes of results: right to the pixel, and never less than the image or more than a network can make."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upres.core import sizes
from upres.core.errors import EnlargementTooLarge, ImageError, NotAnEnlargement
from upres.core.sizes import WantedSize, plan_size

FACTORS = (2, 4, 8)
sides = st.integers(1, 20_000)
images = st.tuples(sides, sides)
decimals = st.integers(sizes.UNITS, 8 * sizes.UNITS).map(lambda units: sizes.plain(units / sizes.UNITS))
models = st.sets(st.sampled_from([1, 2, 4, 8]), min_size=1).map(lambda found: tuple(sorted(found)))
boxes = st.builds(WantedSize, st.none(), sides, sides, st.booleans())
wanted = st.one_of(
    decimals.map(WantedSize),
    boxes,
    sides.map(lambda side: WantedSize(width=side)),
    sides.map(lambda side: WantedSize(height=side)),
)


@pytest.mark.parametrize(
    ("image", "asked", "size", "factor"),
    [
        ((300, 200), WantedSize(4), (1200, 800), 4),
        ((300, 200), WantedSize(2.5), (750, 500), 4),
        ((301, 201), WantedSize(2.5), (753, 503), 4),  # 752.5 and 502.5: halves are rounded up
        ((300, 200), WantedSize(1), (300, 200), 2),
        ((300, 200), WantedSize(4.0001), (1200, 800), 4),
        ((9000, 10), WantedSize(4.0001), (36001, 40), 8),
        ((1000, 667), WantedSize(width=1920), (1920, 1281), 2),
        ((1000, 667), WantedSize(height=1080), (1619, 1080), 2),
        ((1000, 667), WantedSize(width=1920, height=1080), (1619, 1080), 2),
        ((1000, 500), WantedSize(width=1920, height=1080), (1920, 960), 2),
        ((1000, 667), WantedSize(width=1920, height=1080, exact=True), (1920, 1080), 2),
        ((100, 100), WantedSize(width=100, height=800, exact=True), (100, 800), 8),
        ((20_000, 1), WantedSize(width=20_001), (20_001, 1), 2),
    ],
)
def test_sizes_by_example(image: sizes.Size, asked: WantedSize, size: sizes.Size, factor: int) -> None:
    found = plan_size(image, asked, FACTORS)
    assert (found.size, found.factor, found.made) == (size, factor, (image[0] * factor, image[1] * factor))


@given(images, wanted, models)
def test_the_smallest_network_is_taken_that_makes_no_side_too_small(
    image: sizes.Size, asked: WantedSize, model: tuple[int, ...]
) -> None:
    try:
        found = plan_size(image, asked, model)
    except NotAnEnlargement:
        assert any(wants < has for wants, has in zip(asked.size_for(image), image, strict=True))
        return
    except EnlargementTooLarge:
        assert any(wants > has * model[-1] for wants, has in zip(asked.size_for(image), image, strict=True))
        return
    assert all(has <= wants <= made for has, wants, made in zip(image, found.size, found.made, strict=True))
    assert asked.least_factor(model) <= found.factor
    smaller = [one for one in model if one < found.factor]
    assert all(any(has * one < wants for has, wants in zip(image, found.size, strict=True)) for one in smaller)


@given(images, st.sampled_from(FACTORS))
def test_a_factor_of_the_network_needs_no_other_size(image: sizes.Size, factor: int) -> None:
    found = plan_size(image, WantedSize(factor), FACTORS)
    assert found.size == found.made == (image[0] * factor, image[1] * factor)


@given(images, st.integers(1, 20_000), st.integers(1, 20_000))
def test_inside_keeps_the_proportions_and_one_side_is_as_asked(image: sizes.Size, width: int, height: int) -> None:
    size = WantedSize(width=width, height=height).size_for(image)
    assert size[0] <= width
    assert size[1] <= height
    assert size[0] == width or size[1] == height
    scale = size[0] / image[0] if size[0] == width and width * image[1] <= height * image[0] else size[1] / image[1]
    assert all(side == 1 or abs(side - has * scale) <= 0.5 + 1e-6 for side, has in zip(size, image, strict=True))


@given(images, boxes)
def test_exact_is_exact(image: sizes.Size, box: WantedSize) -> None:
    asked = box._replace(exact=True)
    assert asked.size_for(image) == (box.width, box.height)


@given(wanted)
def test_a_wanted_size_comes_back_from_the_decoders_request(asked: WantedSize) -> None:
    assert WantedSize.unpacked(*asked.packed()) == asked


@pytest.mark.parametrize(
    ("image", "asked", "words"),
    [
        ((3000, 2000), WantedSize(width=1500), "already has 3000×2000 pixels.*1500×1000.*only enlarges"),
        ((3000, 2000), WantedSize(width=4000, height=1999, exact=True), "only enlarges"),
        ((100, 50), WantedSize(width=1250), "factor 12.5; this model enlarges by at most 8"),
        ((100, 50), WantedSize(width=100, height=401, exact=True), "at most 8"),
    ],
)
def test_refusals_say_what_is_wrong(image: sizes.Size, asked: WantedSize, words: str) -> None:
    with pytest.raises(ImageError, match=words):
        plan_size(image, asked, FACTORS)


def test_names_of_results_say_the_size() -> None:
    assert [sizes.name(factor, (1920, 1080)) for factor in (4, 2.5, None)] == ["x4", "x2.5", "1920x1080"]
