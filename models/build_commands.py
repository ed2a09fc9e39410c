"""The commands of `upres models` that make, convert and measure versions. Heavy imports are inside of functions."""

import sys
import tempfile
from pathlib import Path

import click

from upres.console.terminal import print_table, row, table
from upres.core import registry
from upres.core.errors import ModelError, ModelNotFound
from upres.models.command_support import fetch_base, new_version, store, version_folder

FORMS = ["onnx", "torchscript", "exported-program", "savedmodel"]


@click.command("import")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--name", required=True, help="Name of the new model.")
@click.option("--version", default="1", show_default=True, help="Name of the new version.")
@click.option("--licence", default="unknown", show_default=True, help="SPDX identifier of the licence of the weights.")
@click.option("--description", default="", help="Purpose of the model.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder to write; default: ./NAME")
def import_file(file: Path, name: str, version: str, licence: str, description: str, out: Path | None) -> None:
    """Convert a checkpoint into a version.

    FILE is a safetensors file, or one of torch (.pth), which is read without running code in it. The library spandrel
    recognises the architecture (pip install "upres[community]"). The receptive field is measured. The folder is written
    when all has succeeded.
    """
    from upres.models import community

    folder = out or Path(name)
    about = {"name": name, "version": version, "licence": licence, "description": description or f"From {file.name}."}
    with new_version(folder, name, version) as made:
        [network] = community.convert(file, made, about).manifest.networks
    print(f"{folder}: {network.architecture}, factor {network.factor}, {community.describe_receptive_field(network)}")
    print(f"Put it into the registry: upres models push {folder}")


@click.command()
@click.argument("base")
@click.argument("other")
@click.option("--at", type=click.FloatRange(0, 1), default=0.5, show_default=True, help="Share of OTHER.")
@click.option("--name", required=True, help="Name of the new model.")
@click.option("--version", default="1", show_default=True, help="Name of the new version.")
@click.option("--licence", help="SPDX identifier of its licence; default: those of both.")
@click.option("--description", help="Purpose of the model.")
@click.option("--adjustable", is_flag=True, help="Let each job choose the share (strength); --at is the default.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder to write; default: ./NAME")
def mix(base: str, other: str, at: float, name: str, adjustable: bool, out: Path | None, **given: str | None) -> None:
    """Mix two models of one architecture.

    The weights are interpolated: with --at 0 the result is BASE, with --at 1 OTHER. Each is the folder of a version,
    the name of a bundled model, or that of a model in the registry. Good mixes come from models of which one was
    fine-tuned from the other.
    """
    from upres.models import mixing

    folder = out or Path(name)
    about = {"name": name, **{field: value for field, value in given.items() if value}}
    with new_version(folder, name, given["version"] or "1") as to, tempfile.TemporaryDirectory() as temporary:
        one, two = (version_folder(end, Path(temporary) / end) for end in (base, other))
        make = mixing.mix_adjustable if adjustable else mixing.mix
        made = make(one, two, at, about, to)
    print(f"{folder}: {made}, {', '.join(f'factor {one}' for one in made.manifest.factors)}")
    print(f"Put it into the registry: upres models push {folder}")


@click.command()
@click.argument("name")
@click.option("--to", "form", required=True, type=click.Choice(FORMS), help="Format of the export.")
@click.option("--version", help="Version or label; default: stable.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder to write; default: ./NAME-VERSION-FORMAT")
@click.option(
    "--python",
    type=click.Path(path_type=Path),
    default=Path("python"),
    help="For savedmodel: a Python with the packages of models/requirements-savedmodel.txt.",
)
def export(name: str, form: str, version: str | None, out: Path | None, python: Path) -> None:
    """Export a model to a portable format.

    Inputs and outputs are 8-bit images. Each export is run by its own runtime and compared with torch. onnx makes a
    version that can be pushed, and served by workers without torch (requirements-onnx.txt).
    """
    from upres.models import export as portable
    from upres.models.measure import download

    with store() as opened:
        model = download(opened, name, version)
        folder = out or Path(f"{name}-{model.manifest.version}-{form}")
        with new_version(folder) as to:
            fetch_base(opened, model.manifest, to)
            exported = portable.export(model, form, to, python)
    for file, checked in exported:
        print(f"{folder / file}: {checked}")
    if form == "onnx":
        print(f"Put it into the registry: upres models push {folder}")


@click.command()
@click.argument("name")
@click.option("--precision", required=True, type=click.Choice(["float16", "int8"]), help="Precision of the variant.")
@click.option(
    "--photos", required=True, type=click.Path(path_type=Path, exists=True), help="Folder of photos to measure with."
)
@click.option("--version", help="Version or label; default: stable.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder to write; default: ./NAME-VERSION-PRECISION")
def variant(name: str, precision: str, photos: Path, version: str | None, out: Path | None) -> None:
    """Make a smaller version, and measure its loss of quality.

    Its folder is written when it is measured. A version that loses more than 0.1 dB, or was not measured, cannot be
    stable. float16: weights of half the size. int8: an ONNX graph with convolutions in int8, calibrated with the
    photos (pip install "upres[onnx]").
    """
    from upres.models import variants
    from upres.models.measure import download

    with store() as opened:
        model = download(opened, name, version)
        folder = out or Path(f"{name}-{model.manifest.version}-{precision}")
        with new_version(folder) as to:
            fetch_base(opened, model.manifest, to)
            made = variants.make(model, precision, photos, to).manifest
    for network in made.networks:
        measured = ", ".join(f"{key} {value:g}" for key, value in network.quality.items())
        print(f"{folder / network.file}: {measured}")
    print(f"Put it into the registry: upres models push {folder}")


@click.command()
@click.argument("name")
@click.argument("versions", nargs=-1, metavar="[VERSION...]")
def verify(name: str, versions: tuple[str, ...]) -> None:
    """Check digests and golden images of versions.

    All versions by default. The golden images are enlarged on this machine.
    """
    from upres.models.measure import verify as check

    bad = False
    with store() as opened:
        registry.labels(opened, name)
        known = registry.index(opened).models.get(name)
        for version in versions or (tuple(one.version for one in known.versions) if known else ()):
            try:
                print(f"{name} {version}: {check(opened, name, version)}")
            except (ModelError, ModelNotFound) as error:
                print(f"{name} {version}: {error}")
                bad = True
    sys.exit(bad)


@click.command()
@click.argument("name")
def compare(name: str) -> None:
    """Compare the canary with the stable version.

    Shows the PSNR on golden images and the latency, measured on this machine.
    """
    from upres.models.measure import compare as measured

    with store() as opened:
        listed = table("label", "version", "golden", "256×256 pixels", "size")
        for line in measured(opened, name):
            row(listed, *line)
    print_table(listed, "")


COMMANDS = (import_file, mix, export, variant, verify, compare)
