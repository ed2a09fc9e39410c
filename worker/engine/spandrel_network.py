"""Networks of other projects, which the library spandrel (github.com/chaiNNer-org/spandrel) builds."""

from types import ModuleType
from typing import Any

from torch import Tensor
from torch.nn import functional

from upres.core.errors import ModelError
from upres.core.manifest import FACTORS
from upres.worker.engine.networks import SuperResolutionNetwork


class UnknownArchitecture(ModelError):
    """No architecture is recognised by the names and shapes of tensors."""


NEEDS = {"DRUNet": "a noise level", "FaceSR": "an image of one face, cut out and turned upright"}
"""What networks of an architecture, or of a purpose, need besides any image, by spandrel's names."""


def library(what: str) -> ModuleType:
    """Return the module spandrel. Raises ModelError, which says that `what` needs it, when it cannot be imported."""
    try:
        import spandrel
    except (ImportError, RuntimeError) as error:  # torchvision raises RuntimeError when it does not fit torch
        need = 'pip install "upres[community]", with a torchvision that fits torch'
        raise ModelError(f"{what} needs spandrel: {need} ({error}).") from error
    module: ModuleType = spandrel
    return module


class SpandrelNetwork(SuperResolutionNetwork):
    """A community checkpoint. spandrel (github.com/chaiNNer-org/spandrel) finds its architecture from its tensors."""

    adds_to_image = False

    def __init__(self, factor: int, descriptor: Any) -> None:
        super().__init__(factor)
        self.model = descriptor.model
        claimed = {"bfloat16": descriptor.supports_bfloat16, "float16": descriptor.supports_half, "float32": True}
        self.precisions = tuple(name for name, fine in claimed.items() if fine)
        wants = descriptor.size_requirements
        self.sides = {"smallest": max(1, wants.minimum), "multiple_of": wants.multiple_of, "square": wants.square}
        self._wants = wants
        self._call = descriptor._call_fn  # the descriptor itself clamps the result, which hides infinite numbers

    @classmethod
    def of(cls, tensors: dict[str, Tensor]) -> "SpandrelNetwork":
        """Build the network of these tensors. Raises ModelError if spandrel is not installed or cannot build it."""
        spandrel = library("This model")
        try:
            found = spandrel.ModelLoader("cpu").load_from_state_dict(spandrel.canonicalize_state_dict(tensors))
        except spandrel.UnsupportedModelError as error:
            raise UnknownArchitecture("spandrel recognises no architecture by these tensors.") from error
        except Exception as error:  # spandrel recognised an architecture, but some tensors do not fit
            raise ModelError(f"spandrel cannot build this network ({type(error).__name__}: {error}).") from error
        channels = (found.input_channels, found.output_channels)
        if besides := NEEDS.get(found.architecture.name) or NEEDS.get(found.purpose):
            raise ModelError(
                f"{found.architecture.name} needs {besides}; upres gives networks an image and nothing else."
            )
        if not isinstance(found, spandrel.ImageModelDescriptor) or channels != (3, 3) or found.scale not in FACTORS:
            what = f"{found.architecture.name}, factor {found.scale}, {channels[0]} → {channels[1]} channels"
            raise ModelError(f"This network does not make RGB images of RGB images with factor 1, 2, 4 or 8: {what}.")
        return cls(found.scale, found)

    def detail(self, image: Tensor) -> Tensor:
        """See SuperResolutionNetwork."""
        height, width = image.shape[-2:]
        padded = _padded(image.to(next(self.model.parameters()).dtype), *self._wants.get_padding(width, height))
        result: Tensor = self._call(self.model, padded)
        return result[..., : height * self.factor, : width * self.factor]


def _padded(image: Tensor, right: int, below: int) -> Tensor:
    """Pad as spandrel does: by reflection, as far as the image is wide and high enough, and then by repetition."""
    height, width = image.shape[-2:]
    reflected = (min(right, width - 1), min(below, height - 1))
    image = functional.pad(image, (0, reflected[0], 0, reflected[1]), "reflect")
    return functional.pad(image, (0, right - reflected[0], 0, below - reflected[1]), "replicate")
