"""A model version as data: which networks it has, what they need, and the digests of their weights."""

from datetime import date
from typing import Literal

from pydantic import Field

from core.schema import ModelName, Order

SHA256 = r"^[0-9a-f]{64}$"


class Network(Order):
    """One network of a model: everything needed to build it and to tile it exactly."""

    architecture: Literal["edsr"] = Field(description="Module in worker/engine/networks.py.")
    factor: int = Field(ge=2, le=8, description="Enlargement per side.")
    width: int = Field(ge=1, description="Channels of the trunk.")
    depth: int = Field(ge=1, description="Residual blocks.")
    receptive_radius: int = Field(ge=0, description="Input pixels around a pixel that its output depends on.")
    file: str = Field(pattern=r"^[A-Za-z0-9._-]+\.safetensors$", description="Weights, beside the manifest.")
    sha256: str = Field(pattern=SHA256, description="SHA-256 of the weights, in hexadecimal.")
    set5_psnr_db: float = Field(gt=0, description="Measured on Set5, Y of BT.601, peak 255.")


class Manifest(Order):
    """`models/{name}/{version}/manifest.json`. Its own SHA-256 is the model's digest."""

    schema_version: Literal[1] = Field(description="Of this schema.")
    name: ModelName = Field(description="Model name.")
    version: str = Field(pattern=r"^[A-Za-z0-9._-]+$", description="Version of the model; never changed once pushed.")
    description: str = Field(description="What the model is for, in a sentence.")
    licence: str = Field(description="SPDX identifier.")
    created: date = Field(description="Date of the weights.")
    networks: tuple[Network, ...] = Field(min_length=1, description="One per factor.")

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


class Labels(Order):
    """`models/{name}/labels.json`: which version each label means."""

    stable: str = Field(description="The version that is served by default.")
