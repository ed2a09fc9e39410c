"""A model version as data: which networks it has, what they need, and the digests of all its files."""

from datetime import date
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from upres.core.schema import ModelName, StrictModel, VersionName

SCHEMA_VERSION = 2
GRAPH_INPUT, GRAPH_OUTPUT = "image", "enlarged"
"""What ONNX graphs call theirs: uint8, (count, height, width, 3) and (count, height·factor, width·factor, 3)."""
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the file, in hexadecimal.")]
Precision = Literal["float32", "bfloat16", "float16", "int8"]


class File(StrictModel):
    """A file beside the manifest."""

    file: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*\.(safetensors|onnx|png)$", description="Its name.")
    sha256: Sha256


class Sides(StrictModel):
    """What a network wants of the sides of its input; images that differ are padded, and the result is cut."""

    smallest: int = Field(1, ge=1, description="Pixels at least.")
    multiple_of: int = Field(1, ge=1, description="A multiple of so many pixels.")
    square: bool = Field(False, description="Whether both have to be the same.")


class Network(File):
    """One network of a model: everything needed to build it and to tile it exactly."""

    architecture: Literal["edsr", "rrdb", "compact", "spandrel", "graph"] = Field(
        description="Module in worker/engine/networks.py; spandrel: recognised by that library; graph: ONNX, whole."
    )
    parameters: dict[str, int] = Field({}, description="Arguments of the module: width, depth, …")
    factor: int = Field(ge=2, le=8, description="Enlargement per side.")
    receptive_radius: int | None = Field(
        ge=0, description="Input pixels around a pixel that its output depends on; null: all of them."
    )
    halo: int | None = Field(
        None,
        ge=0,
        le=256,
        description="Of these, how many matter, as measured: tiles that see so many are within a grey level of none.",
    )
    precisions: tuple[Precision, ...] = Field(
        ("bfloat16", "float16", "float32"), min_length=1, description="What it may be computed in, within 0.01 dB."
    )
    sides: Sides = Field(Sides(), description="Of its input. RGB of 8 bits is what all of them take.")
    graph: File | None = Field(
        None, description="The same network in ONNX, from bytes to bytes: needs no torch, and starts sooner on a CPU."
    )
    quality: dict[str, float] = Field(
        {}, description="As measured: set5_psnr_db (Y of BT.601, peak 255), megabytes, seconds_per_megapixel, …"
    )

    @model_validator(mode="after")
    def _can_be_tiled(self) -> Self:
        if self.receptive_radius is None and self.halo is None:
            raise ValueError("a network that looks at the whole image needs a halo")
        return self

    @property
    def onnx(self) -> File | None:
        """The file with the whole network as a graph, if there is one."""
        return self if self.architecture == "graph" else self.graph

    @property
    def margin(self) -> int:
        """Input pixels that a tile's window has around its core."""
        return self.receptive_radius or 0 if self.halo is None else self.halo


class Golden(StrictModel):
    """An image and what the model made of it, on the machine that knew it right."""

    factor: int = Field(ge=2, le=8, description="Enlargement per side.")
    image: File = Field(description="A small one.")
    enlarged: File = Field(description="What the model makes of it.")
    least_psnr_db: float = Field(
        45, ge=10, description="What a machine makes of the image is this near to `enlarged`, over all channels."
    )


class Manifest(StrictModel):
    """`models/{name}/{version}/manifest.json`. Its own SHA-256 is the model's digest."""

    schema_version: Literal[2] = Field(description="Of this schema.")
    name: ModelName = Field(description="Model name.")
    version: VersionName = Field(description="Version of the model; never changed once pushed.")
    description: str = Field(max_length=1000, description="What the model is for, in a sentence.")
    licence: str = Field(max_length=200, description="SPDX identifier.")
    origin: str = Field("", max_length=1000, description="Where it comes from, if not from upres.")
    created: date = Field(description="Date of the weights.")
    networks: tuple[Network, ...] = Field(min_length=1, description="One per factor.")
    golden: tuple[Golden, ...] = Field((), description="What a worker checks before it serves the version.")

    def chain(self, factor: int) -> tuple[Network, ...]:
        """The networks to run one after the other for a factor, fewest first; empty when impossible.

        A model with networks for 2 and 4 makes 8 from 4, then 2.
        """
        by_factor = sorted(self.networks, key=lambda network: -network.factor)
        for network in by_factor:
            if network.factor == factor:
                return (network,)
            if factor % network.factor == 0 and (rest := self.chain(factor // network.factor)):
                return (network, *rest)
        return ()

    @property
    def factors(self) -> tuple[int, ...]:
        """The enlargements that it can make, of those that can be asked for."""
        return tuple(factor for factor in (2, 4, 8) if self.chain(factor))

    @property
    def files(self) -> tuple[File, ...]:
        """All files beside the manifest, each once."""
        networks = [File(file=one.file, sha256=one.sha256) for one in self.networks]
        graphs = [one.graph for one in self.networks if one.graph]
        golden = [file for one in self.golden for file in (one.image, one.enlarged)]
        return tuple(dict.fromkeys([*networks, *graphs, *golden]))


def _stable(labels: dict[str, str]) -> dict[str, str]:
    if "stable" not in labels:
        raise ValueError("one of them is stable")
    return labels


LabelName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,31}$")]


class Rule(StrictModel):
    """When the canary becomes stable, or is given up, without anybody's doing."""

    jobs: int = Field(ge=1, description="After so many jobs of the canary it becomes stable; unless")
    most_failed_percent: float = Field(ge=0, le=100, description="more of them failed, and it is given up.")


class Labels(StrictModel):
    """`models/{name}/labels.json`: which version each label means."""

    labels: Annotated[dict[LabelName, VersionName], AfterValidator(_stable)] = Field(
        description="stable: served by default; canary: served to a share of the jobs; others: on request."
    )
    canary_percent: float = Field(5, ge=0, le=100, description="Share of the jobs for the canary, if there is one.")
    rule: Rule | None = Field(None, description="Off by default; gone with the canary that it was set for.")
    canary_run_id: str | None = Field(
        None, alias="trial", description="Names this canary's time, so that its jobs are counted alone."
    )
    before: tuple[VersionName, ...] = Field((), description="What was stable before, latest first: for rollback.")
