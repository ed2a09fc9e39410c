"""The gallery: well-known published models and where their authors publish them, from the facts in gallery.toml."""

import tomllib
from functools import cache
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import Field

from upres.core.schema import ModelName, StrictModel

FILE = Path(__file__).with_name("gallery.toml")
Purpose = Literal["photo", "art", "text", "faces", "compression", "noise", "speed"]
PURPOSES: tuple[Purpose, ...] = get_args(Purpose)


class Published(StrictModel):
    """A published model. gallery.toml describes the fields; `for` is `purposes` here."""

    name: ModelName = Field(description="Name for `upres models pull`, and of the model in the registry.")
    purposes: tuple[Purpose, ...] = Field(
        alias="for", min_length=1, description="What it is for; the first one is its group in the list."
    )
    about: str = Field(max_length=200, description="A sentence on what it does.")
    architecture: str = Field(description="Name of the architecture in spandrel.")
    factor: Literal[1, 2, 4, 8] = Field(description="Enlargement per side; 1: it keeps the size.")
    licence: str = Field(description="SPDX identifier of the licence of the weights.")
    author: str = Field(description="Who trained it.")
    home: str = Field(pattern=r"^https://", description="Page of the author about it.")
    size: int = Field(gt=0, description="Bytes of the file of weights.")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256 of that file, in hexadecimal.")
    address: Annotated[str, Field(pattern=r"^https?://[^?#]+\.(pth|safetensors)$")] | None = Field(
        None, description="Where the author publishes the file; None: it comes from the package of realesrgan.py."
    )

    @property
    def allows_commercial_use(self) -> bool:
        """Whether the licence allows commercial use: Creative Commons' licences with NC do not."""
        return "NC" not in self.licence.split("-")

    @property
    def megabytes(self) -> str:
        """The size of the file of weights, for people."""
        return f"{self.size / 1e6:.1f} MB"

    @property
    def licence_text(self) -> str:
        """The licence, marked when it forbids commercial use."""
        return self.licence if self.allows_commercial_use else f"{self.licence} (no commercial use)"


@cache
def models() -> dict[str, Published]:
    """All models of the gallery by name, in the order of the file."""
    tables = tomllib.loads(FILE.read_text())
    return {name: Published.model_validate({**fields, "name": name}) for name, fields in tables.items()}


def chosen(what: str | None) -> list[Published]:
    """The models for a purpose, those of its group first, or the one of a name; None: all. Empty if there is none."""
    found = [one for one in models().values() if what is None or what == one.name or what in one.purposes]
    return sorted(found, key=lambda one: what in one.purposes[1:])
