"""Settings, read from environment variables: UPRES_ followed by the name of the field in capitals.

The credentials and the region of the object store come from AWS's own variables.
"""

import os
from collections.abc import Iterable, Mapping
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError

from upres.core import cores
from upres.core.errors import SettingsError
from upres.core.redis_url import checked
from upres.core.schema import ModelName

PREFIX = "UPRES_"
ADDRESS = "^https?://"


def _list(value: object) -> object:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _certificates(path: Path) -> Path:
    from upres.core import certificates  # imports ssl, which most cold starts do not need

    try:
        certificates.check(path)
    except ValueError as error:
        raise PydanticCustomError("ca_file", "{reason}", {"reason": str(error)}) from None
    return path


Host = Annotated[str, AfterValidator(str.lower), Field(pattern=r"^\.?[A-Za-z0-9][A-Za-z0-9.-]*$")]


def is_among(host: str, hosts: Iterable[str]) -> bool:
    """Whether `host` is in `hosts`; an entry `.example.org` means all hosts below it. An empty list means all hosts."""
    name, named = host.lower().rstrip("."), tuple(hosts)
    return not named or any(name == one or (one.startswith(".") and name.endswith(one)) for one in named)


class Settings(BaseModel):
    """The settings of one deployment; immutable."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    redis_url: Annotated[str, AfterValidator(checked)] = Field(
        "redis://127.0.0.1:6379/0", description="Address of Redis: redis://, rediss:// (TLS) or unix://."
    )
    s3_endpoint_url: str | None = Field(
        None, pattern=ADDRESS, description="Address of the object store, when it is not AWS S3."
    )
    s3_public_url: str | None = Field(
        None, pattern=ADDRESS, description="Address of the object store for clients, if not s3_endpoint_url."
    )
    s3_bucket: str = Field("upres", min_length=1, description="Bucket for uploads, results and models.")
    model: ModelName = Field("photo", description="Default model: workers load it at start, requests may omit it.")
    preload: Annotated[tuple[ModelName, ...], BeforeValidator(_list)] = Field(
        (), description="More models that a worker loads at start (comma-separated); it loads others on the first job."
    )
    model_megabytes: float = Field(
        2000, gt=0, description="Megabytes of weights that a worker keeps; it drops the least recently used first."
    )
    device: Literal["auto", "cuda", "mps", "cpu"] = Field(
        "auto", description="Device of a worker; auto: CUDA if available, else Apple's MPS, else the CPU."
    )
    slots: int = Field(
        default_factory=lambda: min(16, cores.count() + 2),
        ge=1,
        le=64,
        description="Jobs that a worker runs at once: one uses the device, others fetch, encode and store.",
    )
    stop_seconds: float = Field(
        30, ge=0, le=600, description="Seconds that a stopping worker continues its jobs before it gives them back."
    )
    max_input_megapixels: float = Field(
        16, gt=0, le=178, description="Largest accepted image in megapixels; at factor 8 a quarter of it."
    )
    max_input_megabytes: float = Field(
        20, gt=0, le=1000, description="Largest accepted image file in megabytes (1,000,000 bytes)."
    )
    access: Literal["keys", "open"] | None = Field(
        None,
        description="Clients that may use the API; keys: those with an API key; open: all; unset: this machine's.",
    )
    cors_origins: Annotated[tuple[str, ...], BeforeValidator(_list)] = Field(
        (),
        description="Origins whose web pages may use the API, besides its own (comma-separated); *: all. Default: all "
        "if `access` is keys, since there are no cookies; else none, since any page could use what needs no key. "
        "If `access` is unset, * is ignored, and pages of this machine may use the API.",
    )
    public_url: str = Field(
        "", pattern=ADDRESS, description="Address of the function for clients, if requests do not show it."
    )
    fetch_private_networks: Annotated[tuple[IPv4Network | IPv6Network, ...], BeforeValidator(_list)] = Field(
        (), description="Private networks that image_url and webhook_url may reach (CIDR, comma-separated)."
    )
    fetch_hosts: Annotated[tuple[Host, ...], BeforeValidator(_list)] = Field(
        (),
        description="The only hosts that image_url and webhook_url may name (comma-separated; .example.org: all hosts "
        "below it); unset: all public hosts.",
    )
    ca_file: Annotated[Path, AfterValidator(_certificates)] | None = Field(
        None,
        description="PEM file with certificate authorities that are trusted for image_url, webhook_url and the object "
        "store, in addition to the usual ones.",
    )
    metrics_port: int | None = Field(
        None,
        ge=0,
        le=65535,
        description="Port, open to the network, for /metrics (function and worker) and /healthz, /readyz (worker).",
    )
    logs: Literal["auto", "text", "json"] = Field(
        "auto", description="Format of the log; auto: text on a terminal, else json (one object per line)."
    )
    cache_dir: Path = Field(
        Path("~/.cache/upres"), description="Folder in which a worker keeps model files between starts."
    )

    def may_reach(self, host: str) -> bool:
        """Whether `fetch_hosts` allows image_url and webhook_url to name this host. Its addresses are not checked."""
        return is_among(host, self.fetch_hosts)

    @property
    def allowed_origins(self) -> tuple[str, ...]:
        """The origins whose web pages may use the API, besides its own; `*` stands for all."""
        if self.access is None:
            return tuple(origin for origin in self.cors_origins if origin != "*")
        return self.cors_origins or (("*",) if self.access == "keys" else ())

    @property
    def cache_folder(self) -> Path | None:
        """`cache_dir` with `~` replaced; None if the user has no home folder: no HOME, and no line in /etc/passwd."""
        try:
            return self.cache_dir.expanduser()
        except RuntimeError:
            return None

    @property
    def preloaded(self) -> tuple[str, ...]:
        """The models that a worker loads when it starts: `preload`, then `model`; each once."""
        return tuple(dict.fromkeys((*self.preload, self.model)))

    @property
    def max_input_bytes(self) -> int:
        """Largest accepted image file in bytes."""
        return int(self.max_input_megabytes * 1_000_000)

    def max_input_pixels(self, factor: int) -> int:
        """Largest accepted image in pixels. At factor 8 it is a quarter: no result is larger than at factor 4."""
        return int(self.max_input_megapixels * 1_000_000 / max(1, factor * factor / 16))

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "Settings":
        """Read the settings from UPRES_* variables.

        Raises SettingsError, which names each variable with an invalid value.
        """
        given: dict[str, Any] = {
            name: environment[PREFIX + name.upper()]
            for name in cls.model_fields
            if environment.get(PREFIX + name.upper())
        }
        try:
            return cls(**given)
        except ValidationError as error:
            lines = [
                f"{PREFIX}{str(e['loc'][0]).upper()}: {e['msg'].removeprefix('Value error, ')}" for e in error.errors()
            ]
            raise SettingsError("; ".join(lines)) from None
