"""Settings: read once from the environment, frozen, each variable named UPRES_ and the field in capitals.

Credentials and region of the object store come from AWS's own variables.
"""

import os
from collections.abc import Iterable, Mapping
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from upres.core.errors import SettingsError
from upres.core.schema import ModelName

PREFIX = "UPRES_"
ADDRESS = "^https?://"


def _list(value: object) -> object:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


Host = Annotated[str, AfterValidator(str.lower), Field(pattern=r"^\.?[A-Za-z0-9][A-Za-z0-9.-]*$")]


def is_among(host: str, hosts: Iterable[str]) -> bool:
    """Whether a host is one of those named, or below one that begins with a dot; any is where none is named."""
    name, named = host.lower().rstrip("."), tuple(hosts)
    return not named or any(name == one or (one.startswith(".") and name.endswith(one)) for one in named)


class Settings(BaseModel):
    """Everything that differs between deployments."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    redis_url: str = Field(
        "redis://127.0.0.1:6379/0", description="redis://, rediss:// (TLS) or unix:// address of Redis."
    )
    s3_endpoint_url: str | None = Field(None, pattern=ADDRESS, description="Object store other than AWS's own S3.")
    s3_public_url: str | None = Field(
        None, pattern=ADDRESS, description="How clients reach the object store, when that differs from s3_endpoint_url."
    )
    s3_bucket: str = Field("upres", min_length=1, description="Bucket for uploads, results and models.")
    model: ModelName = Field("faithful", description="The model that workers preload and requests get.")
    preload: Annotated[tuple[ModelName, ...], BeforeValidator(_list)] = Field(
        (), description="More models that a worker loads when it starts (comma-separated); others when first asked for."
    )
    model_megabytes: float = Field(
        2000, gt=0, description="Weights that a worker keeps loaded; the least recently used model leaves first."
    )
    device: Literal["auto", "cuda", "mps", "cpu"] = Field(
        "auto", description="auto: CUDA if there is one, else Apple's MPS, else the CPU."
    )
    slots: int = Field(
        default_factory=lambda: min(16, (os.cpu_count() or 1) + 2),
        ge=1,
        le=64,
        description="Jobs that a worker has in flight: while one is on the device, others fetch, encode and store.",
    )
    stop_seconds: float = Field(
        30, ge=0, le=600, description="A worker that is told to stop has so long for the jobs in hand."
    )
    max_input_megapixels: float = Field(
        16, gt=0, le=178, description="Larger images are refused before decoding; a quarter of it at factor 8."
    )
    max_input_megabytes: float = Field(20, gt=0, le=1000, description="Larger image files are refused.")
    access: Literal["keys", "open"] | None = Field(
        None,
        description="Who may submit: holders of API keys, or everybody; unset: everybody on this machine, nobody else.",
    )
    cors_origins: Annotated[tuple[str, ...], BeforeValidator(_list)] = Field(
        ("*",),
        description="Origins whose pages may use the function (comma-separated); *: all, there are no cookies. "
        "Where `access` is not set, the pages of this machine and of the origins named here.",
    )
    public_url: str = Field("", description="How clients reach the function, when it cannot tell from the request.")
    fetch_private_networks: Annotated[tuple[IPv4Network | IPv6Network, ...], BeforeValidator(_list)] = Field(
        (), description="Networks (CIDR, comma-separated) that image_url and webhook_url may reach although not public."
    )
    fetch_hosts: Annotated[tuple[Host, ...], BeforeValidator(_list)] = Field(
        (),
        description="When given, the only hosts (comma-separated; .example.org: all below it) for image_url and "
        "webhook_url.",
    )
    metrics_port: int | None = Field(
        None,
        ge=0,
        le=65535,
        description="Where function and worker serve /metrics, and the worker /healthz and /readyz, to this network.",
    )
    logs: Literal["auto", "text", "json"] = Field(
        "auto", description="auto: text on a terminal, else one JSON object per line."
    )
    cache_dir: Path = Field(Path("~/.cache/upres"), description="Where a worker keeps model files between starts.")

    def may_reach(self, host: str) -> bool:
        """Whether addresses that clients give may name this host, as far as its name goes."""
        return is_among(host, self.fetch_hosts)

    @property
    def preloaded(self) -> tuple[str, ...]:
        """All models that a worker loads when it starts."""
        return tuple(dict.fromkeys((*self.preload, self.model)))

    @property
    def max_input_bytes(self) -> int:
        """The largest image file accepted, in bytes."""
        return int(self.max_input_megabytes * 1_000_000)

    def max_input_pixels(self, factor: int) -> int:
        """The largest image accepted, in pixels: factor 8 may not make more pixels than factor 4."""
        return int(self.max_input_megapixels * 1_000_000 / max(1, factor * factor / 16))

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "Settings":
        """Settings from UPRES_* variables; SettingsError names each variable that cannot be used."""
        given: dict[str, Any] = {
            name: environment[PREFIX + name.upper()]
            for name in cls.model_fields
            if environment.get(PREFIX + name.upper())
        }
        try:
            return cls(**given)
        except ValidationError as error:
            lines = [f"{PREFIX}{str(e['loc'][0]).upper()}: {e['msg']}" for e in error.errors()]
            raise SettingsError("; ".join(lines)) from None
