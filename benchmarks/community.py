"""Community networks on a CPU: OpenVINO against eager torch in float32, after a trial (worker/engine/trials.py).

    taskset -c 0 python -m benchmarks.community [ARCHITECTURE …] [--rrdb FOLDER] [--side PIXELS]

For each architecture, with random weights, microseconds of processor time (of all cores together) per input pixel;
least of three runs. On one core (taskset), because torch's threads wait for each other by computing, which counts as
processor time where other programs use the cores. A network that its trial refuses has one line, and the reason on the
standard error. FOLDER has a version with the network `rrdb`, such as realesrgan-x4plus: it is measured as upres's own
and as spandrel's.
"""

import argparse
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from benchmarks.report import emit
from tests.support import spandrel_on_cpu
from upres.core import registry
from upres.core.manifest import Manifest, Sides, schema_version
from upres.worker.engine import trial_process
from upres.worker.engine.compute import Compute
from upres.worker.engine.openvino_compute import OpenVinoCompute
from upres.worker.engine.spandrel_network import SpandrelNetwork
from upres.worker.engine.torch_compute import TorchCompute
from upres.worker.model import Model, open_folder

RUNS = 3
UNIT, PEER = "µs of processor time per input pixel", "eager torch, float32"


def architectures() -> dict[str, Callable[[], nn.Module]]:
    """Networks of their authors' usual sizes, or fewer blocks where that only makes the measurement longer."""
    from spandrel.architectures import DAT, ESRGAN, FDAT, HAT, PLKSR, RCAN, SAFMN, SPAN, MoSR, NAFNet, OmniSR, SwinIR

    attention = {"img_size": 64, "upsampler": "pixelshuffledirect", "upscale": 2}
    swinir = {"window_size": 8, "embed_dim": 60, "depths": [6] * 4, "num_heads": [6] * 4, "mlp_ratio": 2}
    hat = {"window_size": 16, "embed_dim": 48, "depths": [2, 2], "num_heads": [4, 4], "mlp_ratio": 2}
    dat = {"split_size": [8, 32], "embed_dim": 60, "depth": [18], "num_heads": [6], "expansion_factor": 2}
    return {
        "SPAN": lambda: SPAN.SPAN(num_in_ch=3, num_out_ch=3, feature_channels=48, upscale=4),
        "SAFMN": lambda: SAFMN.SAFMN(dim=36, n_blocks=8, upscaling_factor=4),
        "MoSR": lambda: MoSR.MoSR(upscale=4, n_block=6),
        "PLKSR": lambda: PLKSR.PLKSR(dim=64, n_blocks=12, upscaling_factor=4),
        "RealPLKSR": lambda: PLKSR.RealPLKSR(dim=64, n_blocks=12, upscaling_factor=4),
        "RCAN": lambda: RCAN.RCAN(scale=4, n_resgroups=3, n_resblocks=4, n_feats=64),
        "OmniSR": lambda: OmniSR.OmniSR(res_num=2, up_scale=4),
        "NAFNet": lambda: NAFNet.NAFNet(
            img_channel=3, width=16, middle_blk_num=1, enc_blk_nums=[1] * 4, dec_blk_nums=[1] * 4
        ),
        "ESRGAN": lambda: ESRGAN.ESRGAN(num_filters=64, num_blocks=6, scale=4),
        "FDAT": lambda: FDAT.FDAT(scale=4, embed_dim=60, num_groups=1),
        "SwinIR-S": lambda: SwinIR.SwinIR(**attention, **swinir),
        "HAT": lambda: HAT.HAT(**{**attention, **hat, "upsampler": "pixelshuffle"}),
        "DAT-light": lambda: DAT.DAT(**attention, **dat, resi_connection="3conv"),
    }


def version(name: str, module: nn.Module, folder: Path) -> Model:
    """Write a network's weights into a folder, and return a version with it."""
    tensors = {one: tensor.detach().clone().contiguous() for one, tensor in module.state_dict().items()}
    file = folder / f"{name}.safetensors"
    save_file(tensors, file)
    network = SpandrelNetwork.of(tensors)
    fields = {"factor": network.factor, "sides": network.sides, "alignment": network.sides["multiple_of"]}
    fields |= {"architecture": "spandrel", "receptive_radius": None, "halo": 64, "file": file.name}
    about = {"name": "random", "version": "1", "description": name, "licence": "none", "created": "2026-11-30"}
    digest = registry.digest(file.read_bytes())
    networks = [{**fields, "sha256": digest}]
    schema = schema_version([network.factor], False)
    manifest = Manifest.model_validate({**about, "schema_version": schema, "networks": networks})
    return Model(manifest, digest, {file.name: file}, file.stat().st_size)


def as_spandrel(model: Model) -> Model:
    """The same weights as a version that spandrel builds."""
    [network] = model.manifest.networks
    wants = SpandrelNetwork.of(load_file(model.files[network.file])).sides
    changed = network.model_copy(update={"architecture": "spandrel", "parameters": {}, "sides": Sides(**wants)})
    return model._replace(manifest=model.manifest.model_copy(update={"networks": (changed,)}))


def measure(name: str, model: Model, folder: Path, side: int) -> None:
    """Try a network, and print its figures."""
    [network] = model.manifest.networks
    begin = time.process_time()
    reason = trial_process.refusal(model, folder / name)
    took = time.process_time() - begin
    in_torch = microseconds(network.factor, TorchCompute(model, "cpu", "float32"), side)
    if reason:
        print(f"{name} runs in torch: {reason}", file=sys.stderr, flush=True)
        emit(f"community.{name}.refused", in_torch, UNIT, PEER, in_torch)
        return
    found = OpenVinoCompute(model, tried={network.factor: folder / name / "graph.xml"})
    emit(f"community.{name}", microseconds(network.factor, found, side), UNIT, PEER, in_torch)
    emit(f"community.{name}.trial", took, "s of processor time", "one second", 1)


def microseconds(factor: int, compute: Compute, side: int) -> float:
    """Processor time per input pixel, the least of RUNS."""
    batch = trial_process.windows(1, side, side)
    took = []
    for _ in range(RUNS):
        begin = time.process_time()
        compute.start(factor, batch)()
        took.append(time.process_time() - begin)
    return min(took) * 1e6 / side**2


def own(model: Model, folder: Path, side: int) -> None:
    """Print the figures of a network that upres implements: in its usual precision, and in float32."""
    [network] = model.manifest.networks
    peer = microseconds(network.factor, TorchCompute(model, "cpu", "float32"), side)
    exact = network.model_copy(update={"precisions": ("float32",)})
    in_float32 = model._replace(manifest=model.manifest.model_copy(update={"networks": (exact,)}))
    for one in (model, in_float32):
        compute = OpenVinoCompute(one, folder)
        emit(f"community.own.{compute.precision}", microseconds(network.factor, compute, side), UNIT, PEER, peer)


def main() -> int:
    """Print one JSON line per figure."""
    warnings.simplefilter("ignore")  # of torch's tracing
    spandrel_on_cpu.declare()
    found = architectures()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.community", description=__doc__)
    parser.add_argument("architectures", nargs="*", metavar="ARCHITECTURE", help=f"default: all of {', '.join(found)}")
    parser.add_argument("--rrdb", type=Path, metavar="FOLDER", help="folder of a version with the network rrdb")
    parser.add_argument("--side", type=int, default=128, metavar="PIXELS", help="side of the window (default: 128)")
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if wanted.rrdb:
            model = open_folder(wanted.rrdb)
            own(model, folder, wanted.side)
            measure("x4plus", as_spandrel(model), folder, wanted.side)
        for name in wanted.architectures or ([] if wanted.rrdb else found):
            torch.manual_seed(0)
            measure(name, version(name, found[name](), folder), folder, wanted.side)
    return 0


if __name__ == "__main__":
    sys.exit(main())
