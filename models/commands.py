"""`upres models`: manages the model registry. Connects directly to the object store, as set in UPRES_S3_…."""

import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from upres.console.terminal import connection, print_table, row, table
from upres.core import registry, registry_changes, registry_index
from upres.core.errors import ModelError
from upres.core.foreign_text import printable
from upres.core.manifest import Labels, Rule
from upres.core.registry import CANARY
from upres.models import build_commands, bundled, gallery_commands, removal_commands
from upres.models.command_support import is_served, store

if TYPE_CHECKING:
    from upres.core.served_models import ServedModel

HELP = """Manage models: versions, and labels that say which version is served.

Without a command: list all models. Needs access to the object store (UPRES_S3_BUCKET, UPRES_S3_ENDPOINT_URL, AWS_…)."""
EPILOG = """\b
Examples:
  upres models                                list all models
  upres models gallery                        list published models
  upres models pull realesrgan-x4plus         download one of them
  upres models import my.pth --name mine      convert a checkpoint to a version
  upres models push mine                      … put it into the registry
  upres photo.jpg --model mine                … and use it
  upres models label faithful canary=2 --canary-percent 5
  upres models promote faithful               the canary becomes stable
  upres models prune faithful --keep 3        remove old versions that nothing needs

\b
Exit codes: 0 success · 1 error · 2 wrong usage
"""


class Warnings(logging.Handler):
    """Prints warnings of the registry: what cannot be read, is put back, or may get lost."""

    def emit(self, record: logging.LogRecord) -> None:
        """See logging.Handler."""
        click.echo(f"Warning: {printable(record.getMessage(), None)}", err=True)


WARNINGS = Warnings(logging.WARNING)


@click.group(invoke_without_command=True, help=HELP, epilog=EPILOG)
@click.pass_context
def models(context: click.Context) -> None:
    """See HELP."""
    logging.getLogger("upres").addHandler(logging.NullHandler())  # errors are printed once, as a sentence
    logging.getLogger("upres.registry").addHandler(WARNINGS)
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
        row(listed, entry.name, labels_text(entry.labels), factors, str(len(entry.versions)), *about)
    print_table(listed, "There are no models; push one with `upres models push FOLDER`.")


@models.command()
@click.argument("name")
def show(name: str) -> None:
    """Show one model: versions, labels, and what workers serve.

    Also shows versions that workers refused, with the reason.
    """
    with store() as opened:
        labels = registry.labels(opened, name)
        known = registry.index(opened).models.get(name)
        offer = _offer(name)
    print(f"labels   {labels_text(labels)}")
    if labels.before:
        print(f"before   {', '.join(labels.before)}")
    if CANARY in labels.labels:
        print(f"canary   {labels.canary_percent:g} % of the jobs{_rule(labels)}")
    print(f"served   {offer}\n" if isinstance(offer, str) else f"served   {_served(offer)}\n")
    for version, reason in _refused(name, known, offer).items():
        print(f"refused  {version}: {reason}")
    listed = table("version", "created", "factors", "strength", "licence", "digest", "what for")
    for one in known.versions if known else ():
        factors = ", ".join(map(str, one.factors))
        strength = "" if one.strength is None else f"{one.strength}"
        row(listed, one.version, f"{one.created}", factors, strength, one.licence, one.digest[:12], one.description)
    print_table(listed, "It is not in the index; `upres models reindex` puts it there.")


@models.command()
@click.argument("folders", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FOLDER...")
@click.option("--keep", is_flag=True, help="Only warn when the registry refuses a version of a model that it has.")
def push(folders: tuple[Path, ...], keep: bool) -> None:
    """Put versions into the registry.

    FOLDER contains a version, or is the name of a bundled model: photo or faithful. The first version of a model
    becomes stable. A version that is mixed with another one brings it along. Pushing a version again puts back what is
    missing or damaged of it in the store.
    """
    with store() as opened:
        for folder in map(_pushed, folders):
            try:
                manifest = registry_changes.push(opened, folder)
            except ModelError as error:
                if not (keep and is_served(opened, folder)):
                    raise
                print(f"warning: {error} Until then, what the registry has is served.", file=sys.stderr)
                continue
            base = f", and its base {manifest.mix.model} {manifest.mix.version}" if manifest.mix else ""
            print(f"{manifest.name} {manifest.version} is in the registry{base}")


@models.command()
@click.argument("name")
@click.argument("changes", nargs=-1, metavar="LABEL=VERSION...")
@click.option("--canary-percent", type=float, help="Percentage of jobs for the canary.  [default: 5]")
@click.option(
    "--rule",
    metavar="JOBS:PERCENT",
    help="Make the canary stable after JOBS jobs, unless more than PERCENT failed; or off.",
)
def label(name: str, changes: tuple[str, ...], canary_percent: float | None, rule: str | None) -> None:
    """Set labels of a model to versions.

    For example stable=2 or canary=3; canary= removes the canary. Workers load and check the version first;
    then new jobs use it. Setting or removing the canary removes its rule.
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
        print(f"{name}: {labels_text(registry_changes.relabel(opened, name, wanted, canary_percent, decided))}")


@models.command()
@click.argument("name")
def rollback(name: str) -> None:
    """Set stable to its previous version.

    Removes the canary.
    """
    with store() as opened:
        print(f"{name}: {labels_text(registry_changes.rollback(opened, name))}")


@models.command()
@click.argument("name")
def promote(name: str) -> None:
    """Set stable to the version of the canary, and remove the canary."""
    with store() as opened:
        print(f"{name}: {labels_text(registry_changes.promote(opened, name))}")


@models.command()
@click.argument("name")
@click.argument("version")
def retry(name: str, version: str) -> None:
    """Let workers try a version again that they refused.

    For example after a GPU driver was updated, or when workers died of something else while they loaded it.
    """
    from upres.core import verdicts

    with store() as opened, connection() as redis:
        digest = registry.manifest(opened, name, version)[1]
        dropped = verdicts.drop(redis, name, digest)
    print(f"{name} {version} is tried again" if dropped else f"{name} {version} was not refused; nothing to do")


@models.command()
def reindex() -> None:
    """Rebuild the list of models.

    It is read from the manifests and labels in the store. Needed only after the bucket was changed by hand.
    """
    with store() as opened:
        print(f"{len(registry_index.reindex(opened).models)} models")


def _pushed(folder: Path) -> Path:
    """The folder of a version: the given one, or that of the latest version of the bundled model with this name."""
    known = bundled.versions(folder.name) if len(folder.parts) == 1 and not folder.exists() else {}
    return list(known.values())[-1] if known else folder


def labels_text(labels: Labels) -> str:
    """The labels in one line, as "stable=2, canary=3"."""
    return ", ".join(f"{label}={version}" for label, version in labels.labels.items())


def _offer(name: str) -> "ServedModel | str | None":
    """What workers serve of a model; None when they serve none of it, a sentence when Redis does not answer."""
    from upres.core import served_models

    try:
        with connection() as redis:
            return served_models.published(redis, name)
    except click.ClickException as error:
        return f"not known: {error.message}"


def _refused(name: str, known: "registry.Entry | None", offer: "ServedModel | str | None") -> dict[str, str]:
    """Version that workers refused → why, also while they serve no version of the model."""
    from upres.core import verdicts

    if isinstance(offer, str):  # Redis does not answer
        return {}
    found = dict(offer.refused) if offer else {}
    with connection() as redis:
        for one in known.versions if known else ():
            for verdict in verdicts.against(redis, name, one.digest):
                found.setdefault(one.version, f"{verdict.reason} ({verdict.kind})")
    return found


def _served(offer: "ServedModel | None") -> str:
    if offer is None:
        return "by no worker now; one loads it with the next job"
    return ", ".join(f"{label}={ref.version}" for label, ref in offer.labels.items())


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


for command in (*gallery_commands.COMMANDS, *build_commands.COMMANDS, *removal_commands.COMMANDS):
    models.add_command(command)
