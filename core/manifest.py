"""The manifest of a model version (networks, their requirements, digests of all files), and the labels of a model."""

from collections.abc import Iterable
from datetime import date
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from upres.core.errors import ModelError
from upres.core.schema import ModelName, StoredModel, StrictModel, VersionName
from upres.core.strength import rounded

FACTORS = (1, 2, 4, 8)
"""The factors that a model can make; 1 keeps the size."""
SCHEMA_VERSION = 2
SCHEMA_WITH_FACTOR_1 = 3
SCHEMA_WITH_MIX = 4
"""The schemas of versions that have a network with factor 1, and of those that have a `mix`: so releases that know
neither name the reason, «of a newer upres», and all other versions stay readable for them."""
SCHEMA_VERSIONS = (SCHEMA_VERSION, SCHEMA_WITH_FACTOR_1, SCHEMA_WITH_MIX)
LABELS_SCHEMA = 1
"""The schema of labels.json."""
GRAPH_INPUT, GRAPH_OUTPUT = "image", "enlarged"
"""Names of an ONNX graph's input and output. Both are uint8, of shapes (count, height, width, 3) and
(count, height·factor, width·factor, 3)."""
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the file, in hexadecimal.")]
ShortName = Annotated[str, Field(max_length=64)]
Precision = Literal["float32", "bfloat16", "float16", "int8"]


MAX_MANIFEST_BYTES = 1 << 20
MAX_NETWORK_BYTES = 2 << 30
MAX_PNG_BYTES = 16 << 20
"""Largest files of a version in bytes; protobuf, which ONNX uses, has the same limit of 2 GiB."""
MAX_MARGIN = 512
"""Largest halo in pixels: a window of the engine has twice that on each side, and has to fit into memory."""


class File(StrictModel):
    """A file in the same folder as the manifest."""

    file: str = Field(
        max_length=128,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*\.(safetensors|onnx|png)$",
        description="Name of the file.",
    )
    sha256: Sha256

    @property
    def most_bytes(self) -> int:
        """The largest size in bytes of such a file."""
        return MAX_PNG_BYTES if self.file.endswith(".png") else MAX_NETWORK_BYTES


class Sides(StrictModel):
    """Requirements on the sides of a network's input. Other images are padded, and the output is cropped."""

    smallest: int = Field(1, ge=1, le=1024, description="Minimum side in pixels.")
    multiple_of: int = Field(1, ge=1, le=256, description="Sides must be multiples of this many pixels.")
    square: bool = Field(False, description="Whether both sides must be equal.")


class Network(File):
    """One network of a model: everything that is needed to build it and to tile images exactly."""

    architecture: Literal["edsr", "rrdb", "compact", "spandrel", "graph"] = Field(
        description="Class in worker/engine/networks.py; spandrel: that library detects it; graph: an ONNX file."
    )
    parameters: dict[ShortName, Annotated[int, Field(ge=0, le=1024)]] = Field(
        {}, max_length=16, description="Arguments of the class, such as width and depth."
    )
    factor: int = Field(ge=1, le=8, description="Enlargement per side; 1: the network keeps the size.")
    receptive_radius: int | None = Field(
        ge=0,
        le=4096,
        description="Distance in input pixels within which pixels affect an output pixel; null: the whole image.",
    )
    halo: int | None = Field(
        None,
        ge=0,
        le=256,
        description="Halo in input pixels, if not receptive_radius: with it, tiles were measured to differ from the "
        "untiled image by at most one grey level.",
    )
    precisions: tuple[Precision, ...] = Field(
        ("bfloat16", "float16", "float32"),
        min_length=1,
        max_length=4,
        description="Number formats that lose at most 0.01 dB.",
    )
    sides: Sides = Field(Sides(), description="Requirements on the sides of the input, which is always 8-bit RGB.")
    alignment: int = Field(
        1,
        ge=1,
        le=256,
        description="Windows of tiles start at multiples of this many pixels, because the network divides its input "
        "into squares of that side; measured. A multiple of `sides.multiple_of`.",
    )
    graph: File | None = Field(
        None, description="The same network as an ONNX graph from uint8 to uint8, which a CPU runs without torch."
    )
    quality: dict[ShortName, float] = Field(
        {},
        max_length=64,
        description="Measurements: set5_psnr_db (Y of BT.601, peak 255), megabytes, seconds_per_megapixel, …",
    )

    @model_validator(mode="after")
    def _can_be_tiled(self) -> Self:
        if self.receptive_radius is None and self.halo is None:
            raise ValueError("a network without receptive_radius needs a halo")
        if self.grid % self.sides.multiple_of:
            raise ValueError("alignment must be a multiple of sides.multiple_of")
        if self.margin > MAX_MARGIN:
            raise ValueError(f"a network with a receptive_radius above {MAX_MARGIN} needs a halo")
        return self

    @property
    def onnx(self) -> File | None:
        """The file with the network as an ONNX graph; None when the version has none."""
        return self if self.architecture == "graph" else self.graph

    @property
    def kind(self) -> str:
        """Architecture, parameters and factor: only weights of networks of one kind can be mixed."""
        sizes = [f"{name} {value}" for name, value in sorted(self.parameters.items(), reverse=True)]
        return " ".join([self.architecture, *sizes, f"×{self.factor}"])

    @property
    def margin(self) -> int:
        """The halo of tiles in input pixels: `halo`, else `receptive_radius`; rounded up to a multiple of `grid`."""
        return -(-(self.receptive_radius or 0 if self.halo is None else self.halo) // self.grid) * self.grid

    @property
    def grid(self) -> int:
        """The number of pixels of which the starts of windows are multiples."""
        return self.alignment if self.alignment > 1 else self.sides.multiple_of


def schema_version(factors: Iterable[int], mixed: bool) -> int:
    """Return the schema_version of the manifest of a version whose networks have these factors."""
    return SCHEMA_WITH_MIX if mixed else SCHEMA_WITH_FACTOR_1 if 1 in factors else SCHEMA_VERSION


class Golden(StrictModel):
    """A golden image: a small image and the model's output for it. A worker checks with it that the model works."""

    factor: int = Field(ge=1, le=8, description="Enlargement per side.")
    image: File = Field(description="Small input image.")
    enlarged: File = Field(description="Expected output of the model for this image.")
    least_psnr_db: float = Field(
        45,
        ge=10,
        le=200,
        description="Minimum PSNR in dB, over all channels, between a worker's output and `enlarged`.",
    )


class Mix(StrictModel):
    """The base of a version: another version, whose networks have the same architecture and the same factors.

    The weights that run are interpolated: (1 - strength) · the base's + strength · the version's own (Wang et al. 2018,
    arXiv 1811.10515). Both have to come from one training, or one has to be fine-tuned from the other.
    """

    model: ModelName = Field(description="Name of the base.")
    version: VersionName = Field(description="Version of the base.")
    digest: Sha256
    strength: float = Field(
        ge=0, le=1, description="Strength of jobs that name none, in tenths; golden images are made with it."
    )

    @field_validator("strength")
    @classmethod
    def _in_tenths(cls, strength: float) -> float:
        if strength != rounded(strength):
            raise ValueError("strength must be in tenths")
        return strength


class Manifest(StrictModel):
    """The file `models/{name}/{version}/manifest.json`. Its SHA-256 is the digest of the model version."""

    schema_version: Literal[2, 3, 4] = Field(
        description="Version of this schema: 4 with `mix`, 3 with a network of factor 1, else 2."
    )
    name: ModelName = Field(description="Model name.")
    version: VersionName = Field(description="Version of the model; its files never change once it is pushed.")
    description: str = Field(max_length=1000, description="A sentence that says what the model is for.")
    licence: str = Field(max_length=200, description="SPDX identifier of the licence.")
    origin: str = Field("", max_length=1000, description="Source of the model, when it was not trained by upres.")
    created: date = Field(description="Date of the weights.")
    networks: tuple[Network, ...] = Field(min_length=1, max_length=8, description="Networks, one per factor.")
    mix: Mix | None = Field(None, description="Base, when the strength of the version can be chosen.")
    golden: tuple[Golden, ...] = Field(
        (), max_length=16, description="Golden images that workers check before they serve it."
    )

    @model_validator(mode="after")
    def _has_schema(self) -> Self:
        if self.schema_version != schema_version((one.factor for one in self.networks), self.mix is not None):
            raise ValueError("schema_version must be 4 with mix, 3 with a network of factor 1, else 2")
        return self

    @model_validator(mode="after")
    def _has_weights_to_mix(self) -> Self:
        if self.mix and any(one.architecture == "graph" for one in self.networks):
            raise ValueError("a version with mix needs networks with weights, not ONNX graphs alone")
        return self

    def check_base(self, base: "Manifest") -> None:
        """Raise ModelError when `base` cannot be this version's base: its networks are of another kind."""
        theirs = {one.kind for one in base.networks}
        if base.mix or not all(one.kind in theirs for one in self.networks):
            what = "is mixed itself" if base.mix else "has networks of another architecture, or other factors"
            raise ModelError(
                f"Model {self.name!r} {self.version} cannot be mixed with {base.name!r} {base.version}, which {what}."
            )

    def chain(self, factor: int) -> tuple[Network, ...]:
        """Return the networks to run one after the other for a factor; empty when the model cannot make the factor.

        Larger networks come first: a model with networks for 2 and 4 makes 8 by 4, then 2. A network with factor 1 is
        for factor 1 alone.
        """
        by_factor = sorted(self.networks, key=lambda network: -network.factor)
        for network in by_factor:
            if network.factor == factor:
                return (network,)
            if network.factor > 1 and factor % network.factor == 0 and (rest := self.chain(factor // network.factor)):
                return (network, *rest)
        return ()

    @property
    def factors(self) -> tuple[int, ...]:
        """The factors (of 1, 2, 4 and 8) that the model can make."""
        return tuple(factor for factor in FACTORS if self.chain(factor))

    @property
    def files(self) -> tuple[File, ...]:
        """All files of the version except the manifest, each once."""
        networks = [File(file=one.file, sha256=one.sha256) for one in self.networks]
        graphs = [one.graph for one in self.networks if one.graph]
        golden = [file for one in self.golden for file in (one.image, one.enlarged)]
        return tuple(dict.fromkeys([*networks, *graphs, *golden]))


def _stable(labels: dict[str, str]) -> dict[str, str]:
    if "stable" not in labels:
        raise ValueError("the label stable is missing")
    return labels


LabelName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,31}$")]


class Rule(StoredModel):
    """The rule by which a canary automatically becomes stable or is given up."""

    jobs: int = Field(ge=1, le=1_000_000_000, description="Number of the canary's jobs after which it becomes stable.")
    most_failed_percent: float = Field(
        ge=0, le=100, description="The canary is given up as soon as more than this percentage of `jobs` has failed."
    )


class Labels(StoredModel):
    """The file `models/{name}/labels.json`: the version of each label, and the settings of the canary."""

    schema_version: int = Field(
        LABELS_SCHEMA,
        ge=1,
        description="Version of this schema. 1 is not written, because the first releases refuse the field.",
    )
    labels: Annotated[dict[LabelName, VersionName], AfterValidator(_stable)] = Field(
        max_length=100,
        description="Label → version. stable: the default; canary: for a share of the jobs; others: on request.",
    )
    canary_percent: float = Field(5, ge=0, le=100, description="Share of the jobs that the canary gets, in percent.")
    rule: Rule | None = Field(None, description="Rule for the current canary; absent: an operator decides.")
    canary_run_id: str | None = Field(
        None,
        max_length=64,
        alias="trial",
        description="Id of this canary's run, so that only its own jobs are counted for it.",
    )
    before: tuple[VersionName, ...] = Field(
        (), max_length=100, description="Earlier stable versions for rollback, latest first."
    )
