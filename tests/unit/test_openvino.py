"""The cache of networks that were converted for OpenVINO."""

import itertools
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest

from tests.support import mixable
from upres.worker.engine.openvino_compute import OpenVinoCompute
from upres.worker.model import Model


def test_a_cached_network_gives_equal_results_and_a_damaged_one_is_rebuilt(weights: Model, tmp_path: Path) -> None:
    window = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    expected = OpenVinoCompute(weights).start(2, [window])()
    for damaged in (False, False, True):
        [*graphs] = tmp_path.glob("openvino/*/graph.bin")
        for graph in graphs if damaged else ():
            graph.write_bytes(b"\0" * graph.stat().st_size)
        assert (OpenVinoCompute(weights, tmp_path).start(2, [window])() == expected).all()
    assert len(graphs) == len(weights.manifest.networks)


def test_a_network_that_cannot_be_kept_is_used_without(
    weights: Model, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "openvino").write_bytes(b"a file where a folder should be")
    one = weights._replace(manifest=weights.manifest.model_copy(update={"networks": weights.manifest.networks[1:]}))
    OpenVinoCompute(one, tmp_path)
    assert "UPRES_CACHE_DIR" in caplog.text


def test_networks_are_converted_for_several_jobs_at_once(tmp_path: Path) -> None:
    """Two jobs with two strengths load two models at the same time, in two threads."""
    _base, strong = mixable.pair(tmp_path)
    strengths = (0.0, 0.3, 0.6, 1.0)
    with ThreadPoolExecutor(len(strengths)) as threads:
        made = list(threads.map(lambda strength: OpenVinoCompute(strong.at(strength)), strengths))
    window = np.random.default_rng(0).integers(0, 256, (9, 9, 3), np.uint8)
    for compute, strength in zip(made[::3], strengths[::3], strict=True):
        assert (compute.start(2, [window])() == OpenVinoCompute(strong.at(strength)).start(2, [window])()).all()


def test_memory_does_not_grow_with_the_number_of_image_sizes(model: Model) -> None:
    """Each size of a small image is a shape of its own, for which OpenVINO prepares kernels."""
    compute, process = OpenVinoCompute(model), psutil.Process()

    def enlarge(sizes: Iterable[tuple[int, int]]) -> int:
        for size in sizes:
            compute.start(2, [np.zeros((*size, 3), np.uint8)])()
        return process.memory_info().rss

    sizes = list(itertools.product(range(8, 28), range(8, 24)))
    earlier = enlarge(sizes[:120])
    assert enlarge(sizes[120:]) - earlier < 40 << 20
