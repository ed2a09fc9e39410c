"""Runs the command `upres` in this process, with `--local` and a backend that writes small files in no time."""

from pathlib import Path

from click.testing import CliRunner, Result

from upres.client.atomic_file import MayReplace, atomic_write
from upres.client.batch import Callbacks
from upres.client.cli import enlarge
from upres.client.output_paths import Output
from upres.core import schema
from upres.core.schema import OutputFormat


class Enlarger:
    """A backend that reads each image, and writes its bytes once more as the result."""

    def __init__(self, factor: int, format: OutputFormat = "png") -> None:
        self.factor, self.format, self.seen = factor, format, list[str]()

    def enlarge(self, image: str, callbacks: Callbacks) -> Output:
        """See Backend."""
        self.seen.append(image)
        data = Path(image).read_bytes()

        def save(path: Path, may_replace: MayReplace) -> None:
            with atomic_write(path, may_replace) as file:
                file.write(b"enlarged " + data)

        return Output(made(self.factor, self.format), save)

    def cancel(self) -> None:
        """See Backend."""


def made(factor: int, format: OutputFormat = "png") -> schema.Result:
    """The result of an image whose size does not matter."""
    return schema.Result(
        sr_image_url="", sr_image_uri="", original_image_url="", original_image_uri="", upscale_factor=factor, width=8,
        height=8, format=format, file_name="", model="m", model_version="1", model_digest="d", device="here",
        seconds={},
    )  # fmt: skip


def upres(*arguments: object, input: str | None = None) -> Result:
    """Run the command in the current folder; its factor is 4 if none is given, and its results are PNG files."""
    return CliRunner().invoke(
        enlarge,
        [*map(str, arguments), "--local"],
        input,
        obj=lambda factor, *others: Enlarger(factor),
        catch_exceptions=False,
    )
