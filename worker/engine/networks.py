"""The networks of models as torch modules. loading.py builds them and reads their weights."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional


class SuperResolutionNetwork(nn.Module, ABC):
    """Base of all networks: RGB in [0, 1], (batch, 3, height, width) → (batch, 3, height·factor, width·factor).

    The result is the nearest-neighbour enlargement plus `detail`; if `adds_to_image` is false, it is `detail` alone.
    It is not clamped.
    """

    adds_to_image = True
    precisions: tuple[str, ...] = ("bfloat16", "float16", "float32")
    """Number formats for which it is made; whether its weights are is measured when it is imported."""

    def __init__(self, factor: int) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, image: Tensor) -> Tensor:
        """Enlarge a batch of images; for shapes and ranges see the class."""
        detail = self.detail(image).to(image.dtype)
        if not self.adds_to_image:
            return detail
        return detail + functional.interpolate(image, scale_factor=float(self.factor), mode="nearest")

    @abstractmethod
    def detail(self, image: Tensor) -> Tensor:
        """Compute the network's output, (batch, 3, height·factor, width·factor), in the precision of its weights."""


def conv(channels: int, result: int) -> nn.Conv2d:
    """Make a 3×3 convolution that keeps height and width: the only kind of convolution in these networks."""
    return nn.Conv2d(channels, result, 3, padding=1)


class ResidualBlock(nn.Module):
    """Convolution, ReLU, convolution, plus the input; no normalisation."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = conv(width, width), conv(width, width)

    def forward(self, features: Tensor) -> Tensor:
        """(batch, width, height, width) → the same shape."""
        change: Tensor = self.conv2(functional.relu(self.conv1(features)))
        return features + change


class EDSR(SuperResolutionNetwork):
    """EDSR-baseline (Lim et al. 2017, arXiv 1707.02921) with one pixel shuffle and a nearest-neighbour skip.

    Receptive radius: depth · 2 + 3 input pixels.
    """

    def __init__(self, factor: int, width: int, depth: int) -> None:
        super().__init__(factor)
        self.head = conv(3, width)
        self.blocks = nn.Sequential(*(ResidualBlock(width) for _ in range(depth)))
        self.blend = conv(width, width)
        self.tail = conv(width, 3 * factor * factor)

    def detail(self, image: Tensor) -> Tensor:
        """See SuperResolutionNetwork."""
        features = self.head(image.to(self.head.weight.dtype))
        return functional.pixel_shuffle(self.tail(features + self.blend(self.blocks(features))), self.factor)


class DenseBlock(nn.Module):
    """Five convolutions; each gets the input and all results before it. Returns the input plus 0.2 · the last one."""

    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        for number in range(1, 6):
            setattr(self, f"conv{number}", conv(width + (number - 1) * growth, growth if number < 5 else width))

    def forward(self, features: Tensor) -> Tensor:
        """(batch, width, height, width) → the same shape."""
        parts = [features]
        for number in range(1, 5):
            parts.append(functional.leaky_relu(self.get_submodule(f"conv{number}")(torch.cat(parts, 1)), 0.2))
        change: Tensor = self.get_submodule("conv5")(torch.cat(parts, 1))
        return features + 0.2 * change


class RRDB(nn.Module):
    """Residual-in-residual dense block (Wang et al. 2018): three dense blocks; the input plus 0.2 · their result."""

    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        self.rdb1, self.rdb2, self.rdb3 = (DenseBlock(width, growth) for _ in range(3))

    def forward(self, features: Tensor) -> Tensor:
        """(batch, width, height, width) → the same shape."""
        change: Tensor = self.rdb3(self.rdb2(self.rdb1(features)))
        return features + 0.2 * change


class RRDBNet(SuperResolutionNetwork):
    """ESRGAN's generator for factor 4 (Wang et al. 2018, arXiv 1809.00219). Tensors have the names of its checkpoints.

    Receptive radius: 1 + 15 · depth + 1 + (1 / 2) + 3 · (1 / 4) input pixels, rounded up.
    """

    adds_to_image = False

    def __init__(self, factor: int, width: int, depth: int, growth: int) -> None:
        super().__init__(factor)
        self.conv_first = conv(3, width)
        self.body = nn.Sequential(*(RRDB(width, growth) for _ in range(depth)))
        self.conv_body, self.conv_up1, self.conv_up2 = (conv(width, width) for _ in range(3))
        self.conv_hr, self.conv_last = conv(width, width), conv(width, 3)

    def detail(self, image: Tensor) -> Tensor:
        """See SuperResolutionNetwork."""
        features = self.conv_first(image.to(self.conv_first.weight.dtype))
        features = features + self.conv_body(self.body(features))
        for up in (self.conv_up1, self.conv_up2):
            features = functional.leaky_relu(
                up(functional.interpolate(features, scale_factor=2.0, mode="nearest")), 0.2
            )
        result: Tensor = self.conv_last(functional.leaky_relu(self.conv_hr(features), 0.2))
        return result


class SRVGGNetCompact(SuperResolutionNetwork):
    """The small models of Real-ESRGAN (Wang et al. 2021, arXiv 2107.10833): a chain of convolutions and PReLUs.

    Receptive radius: depth + 2 input pixels.
    """

    def __init__(self, factor: int, width: int, depth: int) -> None:
        super().__init__(factor)
        self.body = nn.ModuleList([conv(3, width), nn.PReLU(width)])
        for _ in range(depth):
            self.body.extend([conv(width, width), nn.PReLU(width)])
        self.body.append(conv(width, 3 * factor * factor))

    def detail(self, image: Tensor) -> Tensor:
        """See SuperResolutionNetwork."""
        features = image.to(next(self.parameters()).dtype)
        for layer in self.body:
            features = layer(features)
        return functional.pixel_shuffle(features, self.factor)


SCALE = 2.0**-24
"""Factor of each number in the sum of an output: it stays small enough for float16, in which a CPU may compute it."""


class ByteNetwork(nn.Module):
    """A network from bytes to bytes: (count, height, width, 3) → (count, height·factor, width·factor, 3), uint8.

    Only the network itself runs in its precision. Its output is rounded to grey levels before it is added to the
    pixels, which are whole numbers. So half precision costs only a few thousandths of a decibel.
    """

    def __init__(self, network: SuperResolutionNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, windows: Tensor) -> Tensor:
        """Enlarge uint8 RGB in [0, 255] to uint8 RGB in [0, 255]."""
        return self.rounded(windows, self.detail(windows))

    def checked(self, windows: Tensor) -> tuple[Tensor, Tensor]:
        """Enlarge as `forward`; also return the sum of the network's output, scaled, for `compute.check_finite`."""
        detail = self.detail(windows)
        return self.rounded(windows, detail), (detail * SCALE).sum()

    def detail(self, windows: Tensor) -> Tensor:
        """Compute the network's output: (count, height·factor, width·factor, 3) float32; 1.0 means 255 grey levels."""
        image = windows.permute(0, 3, 1, 2).float() / 255
        return self.network.detail(image).float().permute(0, 2, 3, 1)

    def rounded(self, windows: Tensor, detail: Tensor) -> Tensor:
        """Round `detail`, add it to the image if `adds_to_image`, and clamp: uint8 in [0, 255]."""
        grey_levels = (detail * 255).round()
        if self.network.adds_to_image:
            grey_levels = grey_levels + self._nearest(windows)
        return grey_levels.clamp(0, 255).to(torch.uint8)

    def exact(self, windows: Tensor, detail: Tensor) -> Tensor:
        """Return the same result without rounding, as float32 in [0, 1]."""
        if self.network.adds_to_image:
            detail = detail + self._nearest(windows) / 255
        return detail.clamp(0, 1)

    def _nearest(self, windows: Tensor) -> Tensor:
        """Return the nearest-neighbour enlargement: float32, but whole numbers in [0, 255]."""
        image = windows.permute(0, 3, 1, 2).float()
        enlarged = functional.interpolate(image, scale_factor=float(self.network.factor), mode="nearest")
        return enlarged.permute(0, 2, 3, 1)
