"""The cache of networks that were converted for OpenVINO."""

import itertools
import resource
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
import psutil
import pytest

from tests.support import mixable
from upres.worker.engine import openvino_compute
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


@contextmanager
def full() -> Iterator[None]:
    """Limit the size of files, so that the kernel refuses to write the graph's weights."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("temporary", [True, False], ids=["temporary folder", "nowhere"])
@pytest.mark.parametrize("faulty", ["a file", "full", "read-only"])
def test_a_network_that_cannot_be_kept_is_used_all_the_same_and_the_log_says_so_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, faulty: str, temporary: bool
) -> None:
    """Without a temporary folder, too: so it is in a container whose file system may only be read."""
    _base, strong = mixable.pair(tmp_path / "models")
    window = np.random.default_rng(0).integers(0, 256, (9, 9, 3), np.uint8)
    expected = OpenVinoCompute(strong).start(2, [window])().astype(int)
    cache = Path("/proc/self") if faulty == "read-only" else tmp_path / faulty
    if faulty == "a file":
        cache.write_bytes(b"where a folder should be")
    monkeypatch.setattr(openvino_compute, "_NOT_KEPT", set())
    if not temporary:
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    with full() if faulty == "full" else nullcontext():
        for _ in range(2):
            made = OpenVinoCompute(strong, cache).start(2, [window])()
            assert np.abs(made - expected).max() <= (0 if temporary and faulty != "full" else 2)
    assert caplog.text.count("UPRES_CACHE_DIR") == 1
    assert not [path for path in cache.glob("openvino/*") if path.is_dir()], "a graph does not fit"


def test_a_kept_network_that_openvino_cannot_read_is_made_again(tmp_path: Path) -> None:
    """Another program, or a disk that was full, has left a file whose digest is right."""
    _base, strong = mixable.pair(tmp_path / "models")
    window = np.random.default_rng(0).integers(0, 256, (9, 9, 3), np.uint8)
    expected = OpenVinoCompute(strong, tmp_path).start(2, [window])()
    for graph in tmp_path.glob("openvino/*/graph.xml"):
        graph.write_bytes(b"no graph")
        (graph.parent / "sha256").write_text(openvino_compute._digest(graph.parent))
    assert (OpenVinoCompute(strong, tmp_path).start(2, [window])() == expected).all()
    assert all(graph.read_bytes() != b"no graph" for graph in tmp_path.glob("openvino/*/graph.xml"))


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
