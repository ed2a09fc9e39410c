"""The commands of `upres models` for the gallery, and `pull`. Heavy imports are inside of functions."""

import json
import sys
import tempfile
from pathlib import Path

import click

from upres.client.signals import stopped_by_signals
from upres.console.terminal import print_table, row, table
from upres.core import registry, registry_changes
from upres.core.errors import ModelNotFound
from upres.core.registry import STABLE
from upres.core.settings import Settings
from upres.core.storage import Store
from upres.models import gallery
from upres.models.command_support import empty_folder, new_version, store
from upres.models.gallery import PURPOSES, Published


@click.command("gallery")
@click.argument("what", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per model.")
def show_gallery(what: str | None, as_json: bool) -> None:
    """List published models that pull fetches by their name.

    WHAT is what a model is for (photo, art, text, faces, compression, noise, speed), or a name, of which it shows all.
    Models with factor 1 clean an image before another one enlarges it (--first-model). Licences that forbid commercial
    use are marked.
    """
    found = gallery.chosen(what)
    if not found:
        raise click.ClickException(
            f"There is no {what!r} in the gallery; give a name that `upres models gallery` lists, or one of "
            f"{', '.join(PURPOSES)}."
        )
    if as_json:
        for one in found:
            print(json.dumps({**one.model_dump(by_alias=True), "commercial_use": one.allows_commercial_use}))
    elif what == found[0].name:
        _details(found[0])
    else:
        listed = table("model", "for", "factor", "architecture", "size", "licence", "author")
        for one in found:
            about = (", ".join(one.purposes), str(one.factor), one.architecture, one.megabytes)
            row(listed, one.name, *about, one.licence_text, one.author)
        print_table(listed, "")
        print("\nMore on one: upres models gallery NAME. Fetch it: upres models pull NAME.")


def _details(one: Published) -> None:
    lines = {
        "model": one.name,
        "what for": f"{one.about} ({', '.join(one.purposes)})",
        "network": f"{one.architecture}, factor {one.factor}",
        "licence": one.licence_text,
        "author": one.author,
        "home": one.home,
        "file": one.address or "part of a package of the Python package index",
        "size": one.megabytes,
        "SHA-256": one.sha256,
    }
    for name, value in lines.items():
        print(f"{name:<9} {value}")


@click.command()
@click.argument("name")
@click.option("--version", help="Version or label of a model in the registry; default: stable.")
@click.option("--out", type=click.Path(path_type=Path), help="Write into this folder, not into the registry.")
@click.option("--accept-licence", is_flag=True, help="Accept a licence that forbids commercial use.")
def pull(name: str, version: str | None, out: Path | None, accept_licence: bool) -> None:
    """Download a model by its name.

    Either a published model into the registry, or a version in the registry into a folder. `upres models gallery` lists
    the published ones. Their files are checked by digest, converted and measured; golden images are made from them.
    Most need spandrel (pip install "upres[community]").
    """
    published = gallery.models().get(name) if version is None else None
    with store() as opened, stopped_by_signals():
        if published:
            _pull_published(opened, published, out, accept_licence)
        else:
            _pull_version(opened, name, version, out)


def _pull_published(opened: Store, model: Published, out: Path | None, accepted: bool) -> None:
    from upres.models import publishing

    if out is None and model.name in registry.index(opened).models:
        print(f"{model.name} is in the registry")
        return
    folder = empty_folder(out) if out else None
    click.echo(f"{model.name}: {model.megabytes}, licence {model.licence}, by {model.author}, {model.home}", err=True)
    if not model.allows_commercial_use and not accepted:
        _ask(model)
    click.echo(f"fetching and converting {model.name} …", err=True)
    with tempfile.TemporaryDirectory() as temporary:
        made = folder or Path(temporary) / model.name
        publishing.make(model, made, Settings.from_environment().ca_file)
        if folder is None:
            registry_changes.push(opened, made)
    print(f"{model.name} 1 is in {out or 'the registry'}")


def _ask(model: Published) -> None:
    """Ask whether the licence is accepted. Raises click.ClickException where nobody can be asked, click.Abort at no."""
    forbids = f"{model.licence} forbids commercial use"
    if not sys.stdin.isatty():
        raise click.ClickException(f"{forbids}; give --accept-licence if you accept it.")
    click.confirm(f"{forbids}. Do you accept it?", abort=True, err=True)


def _pull_version(opened: Store, name: str, version: str | None, out: Path | None) -> None:
    try:
        labels = registry.labels(opened, name)
    except ModelNotFound as error:
        raise ModelNotFound(f"{error} `upres models gallery` lists published ones.") from error
    wanted = labels.labels.get(version or STABLE, version or STABLE)
    folder = out or Path(f"{name}-{wanted}")
    with new_version(folder) as to:
        registry.fetch(opened, name, wanted, to)
    print(f"{name} {wanted} is in {folder}")


COMMANDS = (show_gallery, pull)
