"""The parts of `make gpu`, in their order, each with its time limit and the sizes of its work."""

from typing import NamedTuple

SECONDS = 600
"""The limit for all parts together."""


class Part(NamedTuple):
    """A part: a module that runs in a process of its own.

    `seconds` is its share of SECONDS. The arguments are those on a GPU, those by which a CPU can imitate it in some
    minutes, and those of a quick test of the script.
    """

    name: str
    about: str
    seconds: int
    module: str
    on_gpu: str = ""
    imitated: str = ""
    quick: str = ""

    def arguments(self, device: str, quick: bool) -> list[str]:
        """Return the arguments of the module on a device, `cuda` or `cpu`."""
        sizes = self.on_gpu if device == "cuda" else self.quick if quick else self.imitated
        return ["--device", device, *sizes.split()]


PARTS = (
    Part("versions", "driver, CUDA, torch, compute capability", 20, "benchmarks.gpu.versions"),
    Part(
        "pixels",
        "golden images, and tiled against untiled, in both precisions",
        50,
        "benchmarks.gpu.pixels",
        "--side 1024 --tile 640",
        "--side 128 --tile 96",
        "--side 100 --tile 88 --models faithful --precisions float32",
    ),
    Part(
        "faults",
        "an index out of range and a bad pointer: exit code 75, and the next worker does the job",
        80,
        "benchmarks.gpu.faults",
        "--size 1280x720",
        "--size 160x120",
        "--size 64x48 --faults index",
    ),
    Part(
        "memory",
        "with 2, 1 and 0.5 GB of memory: the right pixels, and remembered limits",
        120,
        "benchmarks.gpu.memory",
        "--size 1920x1080",
        "--size 150x120",
        "--size 150x120 --gigabytes 0.5",
    ),
    Part(
        "jobs",
        "16 jobs at once through a real worker",
        60,
        "benchmarks.gpu.jobs",
        "--size 1920x1080",
        "--size 96x64",
        "--size 48x32 --jobs 4",
    ),
    Part(
        "pipeline",
        "whole images, cold and warm, and how busy the device is",
        50,
        "benchmarks.pipeline",
        "",
        "--size 160x120 --thumbnails 4 --megapixels 0.1",
        "--size 64x48 --thumbnails 1 --megapixels 0.05",
    ),
    Part(
        "forward",
        "the network alone against the roofline, eager torch, torch.compile and CUDA graphs",
        100,
        "benchmarks.forward",
        "--precisions float16 float32",
        "--precisions bfloat16 float32 --sides 64 --sizes 160x120 --runs 2",
        "--precisions float32 --sides 16 --sizes 24x24 --runs 1 --ways upres eager",
    ),
    Part(
        "suite",
        "the tests of the engine and the models with UPRES_TEST_DEVICE",
        120,
        "benchmarks.gpu.suite",
        "",
        "",
        "--only tests/unit/test_on_device.py",
    ),
)
"""What matters most comes first. A part that ends early leaves its time to those after it."""
