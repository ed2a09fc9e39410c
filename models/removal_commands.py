"""The commands of `upres models` that remove versions from the registry."""

import click

from upres.console.terminal import connection
from upres.core import keys
from upres.core.storage import Store
from upres.models.command_support import store

Needs = dict[str, list[str]]


@click.command()
@click.argument("name")
@click.argument("version")
@click.option("--force", is_flag=True, help="Remove it although it is needed, and labels that point to it.")
def remove(name: str, version: str, force: bool) -> None:
    """Remove a version from the registry.

    Refused while a label points to it, another version is mixed with it, workers serve it, or a job that has not ended
    needs it. Also removes what a push that broke off has left. With --force the last version takes the model along.
    """
    from upres.core import removal

    with store() as opened:
        needed = _needed(opened, name, force).get(version, [])
        removal.remove(opened, name, version, needed, force)
    print(f"{name} {version} is removed")


@click.command()
@click.argument("name")
@click.option("--keep", type=click.IntRange(min=1), required=True, help="Number of the newest versions to keep.")
@click.option("--dry-run", is_flag=True, help="Only say what would be removed.")
def prune(name: str, keep: int, dry_run: bool) -> None:
    """Remove old versions.

    Keeps the newest ones, by the date of their weights, and all that `upres models remove` refuses to remove.
    """
    from upres.core import removal

    with store() as opened:
        found = removal.prunable(opened, name, keep, _needed(opened, name, force=False))
        for version, needed in found:
            if needed:
                print(f"{name} {version} stays: {'; '.join(needed)}")
            elif dry_run:
                print(f"{name} {version} would be removed")
            else:
                removal.remove(opened, name, version)
                print(f"{name} {version} is removed")
    if not found:
        print(f"{name}: there is nothing to remove")


def _needed(opened: Store, name: str, force: bool) -> Needs:
    """Return by what each version is needed. Raises click.ClickException without Redis, unless `force`."""
    from upres.core import model_uses

    keys.labels(name)  # raises ModelNotFound for what cannot be a name
    found = model_uses.in_registry(opened, name)
    try:
        with connection() as redis:
            for version, needed in model_uses.in_redis(redis, name).items():
                found.setdefault(version, []).extend(needed)
    except click.ClickException as error:
        if not force:
            raise click.ClickException(
                f"{error.message} So it is not known whether workers or jobs need the version; upres models remove "
                "--force removes it all the same."
            ) from error
    return found


COMMANDS = (remove, prune)
