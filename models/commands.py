"""`upres models`: what operators do with the registry. Talks to the object store itself, as UPRES_S3_… say."""

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import click
from pydantic import ValidationError

from client.terminal import connection, print_table, row, table
from core import catalogue, registry
from core.catalogue import Offer
from core.errors import ModelError, ModelNotFound, UpresError
from core.manifest import Labels, Rule
from core.registry import CANARY, STABLE
from core.settings import Settings
from core.storage import Store

FORMS = ["onnx", "torchscript", "exported-program", "savedmodel"]
HELP = """Look after the models that an upres serves: versions, and the labels that say which is served.

Needs access to the object store (UPRES_S3_BUCKET, UPRES_S3_ENDPOINT_URL, AWS_…).

\b
  upres models import my.safetensors --name mine     a community checkpoint becomes version 1 of «mine»
  upres models push ./mine                           … and is in the registry
  upres enlarge photo.jpg --model mine               … and in use
"""


@click.group(invoke_without_command=True, help=HELP)
@click.pass_context
def models(context: click.Context) -> None:
    """See HELP."""
    if context.invoked_subcommand is None:
        context.invoke(list_models)


@models.command("list")
def list_models() -> None:
    """List all models and their labels."""
    with store() as opened:
        entries = registry.index(opened).models.values()
    listed = table("model", "labels", "factors", "versions", "licence", "what for")
    for entry in entries:
        stable = entry.stable
        factors = ", ".join(map(str, stable.factors)) if stable else ""
        about = (stable.licence, stable.description) if stable else ("", "its stable version cannot be read")
        row(listed, entry.name, meant(entry.labels), factors, str(len(entry.versions)), *about)
    print_table(listed, "There are no models; push one with `upres models push FOLDER`.")


@models.command()
@click.argument("name")
def show(name: str) -> None:
    """Show a model, and what of it is served.

    Its versions, what its labels mean, and what workers say to that.
    """
    with store() as opened:
        labels = registry.labels(opened, name)
        known = registry.index(opened).models.get(name)
        offer = _offer(name)
    print(f"labels   {meant(labels)}")
    if labels.before:
        print(f"before   {', '.join(labels.before)}")
    if CANARY in labels.labels:
        print(f"canary   {labels.canary_percent:g} % of the jobs{_rule(labels)}")
    print(f"served   {offer}\n" if isinstance(offer, str) else f"served   {_served(offer)}\n")
    for version, reason in (offer.refused if isinstance(offer, Offer) else {}).items():
        print(f"refused  {version}: {reason}")
    listed = table("version", "created", "factors", "licence", "digest", "what for")
    for one in known.versions if known else ():
        factors = ", ".join(map(str, one.factors))
        row(listed, one.version, f"{one.created}", factors, one.licence, one.digest[:12], one.description)
    print_table(listed, "It is not in the index; `upres models reindex` puts it there.")


@models.command()
@click.argument("folders", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FOLDER...")
def push(folders: tuple[Path, ...]) -> None:
    """Put versions into the registry.

    The first one of a model becomes its stable one.
    """
    with store() as opened:
        for folder in folders:
            manifest = registry.push(opened, folder)
            print(f"{manifest.name} {manifest.version} is in the registry")


@models.command()
@click.argument("name")
@click.argument("changes", nargs=-1, metavar="LABEL=VERSION...")
@click.option("--canary-percent", type=float, help="Share of the jobs that the canary gets.  [default: 5]")
@click.option(
    "--rule",
    metavar="JOBS:PERCENT",
    help="Make the canary stable after JOBS jobs, unless more than PERCENT failed; or off.",
)
def label(name: str, changes: tuple[str, ...], canary_percent: float | None, rule: str | None) -> None:
    """Let labels mean versions from now on.

    For example stable=2, or canary=3; canary= takes the canary away. Workers make the version ready and check it
    first; then new jobs get it. A rule ends with its canary.
    """
    if not changes and canary_percent is None and rule is None:
        raise click.UsageError("Say what to change: stable=2, for example.")
    wanted = {}
    for one in changes:
        which, equals, version = one.partition("=")
        if not equals:
            raise click.UsageError(f"{one}: write LABEL=VERSION, stable=2 for example.")
        wanted[which] = version or None
    decided = _read_rule(rule) if rule else None
    with store() as opened:
        print(f"{name}: {meant(registry.relabel(opened, name, wanted, canary_percent, decided))}")


@models.command()
@click.argument("name")
def rollback(name: str) -> None:
    """Let stable mean what it meant before.

    A canary is given up.
    """
    with store() as opened:
        print(f"{name}: {meant(registry.rollback(opened, name))}")


@models.command()
@click.argument("name")
def promote(name: str) -> None:
    """Let stable mean what canary means."""
    with store() as opened:
        print(f"{name}: {meant(registry.promote(opened, name))}")


@models.command()
def reindex() -> None:
    """Make the list of models anew.

    For when somebody has changed the bucket by hand.
    """
    with store() as opened:
        print(f"{len(registry.reindex(opened).models)} models")


@models.command()
@click.argument("name")
@click.option("--version", help="Version or label of a model in the registry; default: stable.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder to put it into, instead of the registry.")
def pull(name: str, version: str | None, out: Path | None) -> None:
    """Get a model by its name.

    From where the field publishes it into the registry, or from the registry into a folder. Published, and known here:
    realesrgan-x4plus (photos), realesrgan-x4plus-anime (drawings), realesr-animevideov3 (drawn films, small). They are
    converted, checked by digest, and get golden images.
    """
    from models import realesrgan

    with store() as opened, tempfile.TemporaryDirectory() as temporary:
        if name in realesrgan.PUBLISHED and version is None:
            if out is None and name in registry.index(opened).models:
                print(f"{name} is in the registry")
                return
            click.echo(f"fetching and converting {name} …", err=True)
            folder = fresh(out) if out else Path(temporary) / name
            realesrgan.pull(name, folder)
            if out is None:
                registry.push(opened, folder)
            print(f"{name} 1 is in {out or 'the registry'}")
            return
        labels = registry.labels(opened, name)
        wanted = labels.labels.get(version or STABLE, version or STABLE)
        folder = fresh(out or Path(f"{name}-{wanted}"))
        registry.fetch(opened, name, wanted, folder)
        print(f"{name} {wanted} is in {folder}")


@models.command("import")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--name", required=True, help="What the model shall be called.")
@click.option("--version", default="1", show_default=True, help="What this version shall be called.")
@click.option("--licence", default="unknown", show_default=True, help="SPDX identifier of the weights' licence.")
@click.option("--description", default="", help="What the model is for.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder to make; default: ./NAME")
def import_file(file: Path, name: str, version: str, licence: str, description: str, out: Path | None) -> None:
    """Make a version of a checkpoint.

    .safetensors, or .pth, which is read without running anything in it. The architecture is recognised by spandrel
    (pip install "upres[community]"). How far it sees is measured.
    """
    from models import community

    folder = fresh(out or Path(name))
    about = {"name": name, "version": version, "licence": licence, "description": description or f"From {file.name}."}
    with explained():
        model = community.convert(file, folder, about)
        [network] = model.manifest.networks
        print(f"{folder}: {network.architecture}, factor {network.factor}, {community.sight(network)}")
    print(f"Put it into the registry: upres models push {folder}")


@models.command()
@click.argument("name")
@click.option("--to", "form", required=True, type=click.Choice(FORMS), help="What to make.")
@click.option("--version", help="Version or label; default: stable.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder to make; default: ./NAME-VERSION-FORM")
@click.option(
    "--python",
    type=click.Path(path_type=Path),
    default=Path("python"),
    help="For savedmodel: the Python of an environment that has models/requirements-savedmodel.txt.",
)
def export(name: str, form: str, version: str | None, out: Path | None, python: Path) -> None:
    """Make a portable form of a model.

    From bytes to bytes, and compared with torch in its own runtime. onnx makes a version that can be pushed, and
    served by workers without torch (requirements-onnx.txt).
    """
    from models import export as portable
    from models.measure import pulled

    with store() as opened:
        model = pulled(opened, name, version)
        folder = fresh(out or Path(f"{name}-{model.manifest.version}-{form}"))
        for file, checked in portable.export(model, form, folder, python):
            print(f"{folder / file}: {checked}")
    if form == "onnx":
        print(f"Put it into the registry: upres models push {folder}")


@models.command()
@click.argument("name")
@click.option("--precision", required=True, type=click.Choice(["float16", "int8"]), help="Of weights, or of all.")
@click.option(
    "--photos", required=True, type=click.Path(path_type=Path, exists=True), help="Folder of photos to measure with."
)
@click.option("--version", help="Version or label; default: stable.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder to make; default: ./NAME-VERSION-PRECISION")
def variant(name: str, precision: str, photos: Path, version: str | None, out: Path | None) -> None:
    """Make a smaller version, measured.

    One that loses more than 0.1 dB cannot be stable. float16: weights of half the size. int8: an ONNX graph with
    convolutions in int8, ranges taken from the photos.
    """
    from models import variants
    from models.measure import pulled

    with store() as opened:
        model = pulled(opened, name, version)
        folder = fresh(out or Path(f"{name}-{model.manifest.version}-{precision}"))
        for network in variants.make(model, precision, photos, folder).manifest.networks:
            measured = ", ".join(f"{key} {value:g}" for key, value in network.quality.items())
            print(f"{folder / network.file}: {measured}")
    print(f"Put it into the registry: upres models push {folder}")


@models.command()
@click.argument("name")
@click.argument("versions", nargs=-1, metavar="[VERSION...]")
def verify(name: str, versions: tuple[str, ...]) -> None:
    """Check digests and golden images.

    Of all versions by default; the golden images are enlarged on this machine.
    """
    from models.measure import verify as check

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


@models.command()
@click.argument("name")
def compare(name: str) -> None:
    """Compare the canary with the stable version.

    PSNR on golden images, and latency, on this machine.
    """
    from models.measure import compare as measured

    with store() as opened:
        listed = table("label", "version", "golden", "256×256 pixels", "size")
        for line in measured(opened, name):
            row(listed, *line)
    print_table(listed, "")


def meant(labels: Labels) -> str:
    """Labels in a line."""
    return ", ".join(f"{label}={version}" for label, version in labels.labels.items())


def _offer(name: str) -> Offer | str | None:
    """What workers say; in a sentence why that is not known."""
    try:
        with connection() as redis:
            return catalogue.published(redis, name)
    except click.ClickException as error:
        return f"not known: {error.message}"


def _served(offer: Offer | None) -> str:
    if offer is None:
        return "by no worker now; one loads it with the next job"
    return ", ".join(f"{label}={pin.version}" for label, pin in offer.labels.items())


def _rule(labels: Labels) -> str:
    if labels.rule is None:
        return ""
    return f"; stable after {labels.rule.jobs}, unless more than {labels.rule.most_failed_percent:g} % fail"


def _read_rule(text: str) -> Rule | Literal["off"]:
    if text == "off":
        return "off"
    jobs, _, percent = text.partition(":")
    try:
        return Rule(jobs=int(jobs), most_failed_percent=float(percent))
    except ValueError:
        raise click.UsageError("--rule: write JOBS:PERCENT, 1000:0.5 for example.") from None


def fresh(folder: Path) -> Path:
    """A folder that is to be made. Raises ClickException when there is something in it: a version is of one piece."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise click.ClickException(f"{folder} is there already; give another one with --out, or remove it.")
    return folder


@contextmanager
def store() -> Iterator[Store]:
    """The object store; what goes wrong inside the block ends the command with a sentence."""
    with explained():
        yield Store(Settings.from_environment())


@contextmanager
def explained() -> Iterator[None]:
    """What goes wrong inside the block ends the command with a sentence."""
    try:
        yield
    except UpresError as error:
        raise click.ClickException(f"{error} ({error.code})") from error
    except ValidationError as error:
        raise click.ClickException(registry.first(error)) from error
