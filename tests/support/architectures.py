"""Small networks of every architecture that spandrel knows, with what becomes of them at an import."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any, NamedTuple

from torch import nn

WINDOWS = {"img_size": 16, "window_size": 8, "embed_dim": 16, "num_heads": [2]}
"""A transformer with window attention, as small as its factory recognises it."""


class Case(NamedTuple):
    """A network: its class in spandrel, its parameters, and the factor with which it is imported, or why it is not."""

    name: str
    parameters: Mapping[str, Any]
    becomes: int | str
    module: str = ""
    """Module of the class below spandrel.architectures; by default it has the class's name."""
    about: str = ""
    """What distinguishes this case from others of the class."""

    def build(self) -> nn.Module:
        """Build the network, with the weights that it has before any training."""
        kind = getattr(import_module(f"spandrel.architectures.{self.module or self.name}"), self.name)
        made: nn.Module = kind(**self.parameters)
        return made


CASES = (
    Case("Compact", {"num_feat": 8, "num_conv": 2, "upscale": 2}, 2),
    Case("Compact", {"num_feat": 8, "num_conv": 2, "upscale": 3}, "factor 1, 2, 4 or 8", about="x3"),
    Case("SwiftSRGAN", {"num_channels": 8, "num_blocks": 2, "upscale_factor": 2}, 2),
    Case("HAT", {**WINDOWS, "depths": [2], "upscale": 2, "compress_ratio": 4, "squeeze_factor": 4}, 2),
    Case("GRL", {"img_size": 16, "embed_dim": 16, "depths": [1], "num_heads_window": [2], "num_heads_stripe": [2],
                 "upscale": 2, "upsampler": "pixelshuffledirect"}, 2),
    Case("Swin2SR", {**WINDOWS, "depths": [2], "upscale": 2, "upsampler": "pixelshuffledirect"}, 2),
    Case("SwinIR", {**WINDOWS, "depths": [2], "upscale": 2, "upsampler": "pixelshuffledirect"}, 2),
    Case("GFPGAN", {}, "face"),
    Case("RestoreFormer", {}, "face"),
    Case("LaMa", {}, "RGB images of RGB images"),
    Case("OmniSR", {"num_feat": 16, "up_scale": 2}, 2),
    Case("SCUNet", {"dim": 64, "config": [1] * 7}, 1),
    Case("FBCNN", {"nc": [8, 8, 8, 512], "nb": 2}, 1),
    Case("Uformer", {"embed_dim": 8, "depths": [1] * 9, "num_heads": [1] * 9}, 1),
    Case("RGT", {"img_size": 16, "embed_dim": 16, "depth": [2], "num_heads": [2], "upscale": 2}, 2),
    Case("DAT", {"img_size": 16, "embed_dim": 16, "depth": [2], "num_heads": [2], "upscale": 2}, 2),
    Case("CRAFT", {"embed_dim": 12, "depths": [1], "num_heads": [6], "upscale": 2}, 2),
    Case("KBNet_s", {"width": 8, "middle_blk_num": 1, "enc_blk_nums": [1], "dec_blk_nums": [1]}, 1, "KBNet"),
    Case("KBNet_l", {"dim": 48, "num_blocks": [1, 1, 1, 1], "num_refinement_blocks": 1, "heads": [1, 2, 4, 8]}, 1,
         "KBNet"),
    Case("DITN", {"dim": 12, "ITL_blocks": 1, "SAL_blocks": 1, "upscale": 2}, 2),
    Case("MMRealSR", {"num_in_ch": 3, "num_out_ch": 3, "num_feat": 8, "num_block": 1, "num_grow_ch": 4,
                      "num_feats": [8, 8, 8, 8], "num_blocks": [1, 1, 1, 1]}, 4),
    Case("SPAN", {"num_in_ch": 3, "num_out_ch": 3, "feature_channels": 16, "upscale": 2}, 2),
    Case("UpCunet2x", {}, 2, "RealCUGAN"),
    Case("UpCunet2x_fast", {}, 2, "RealCUGAN"),
    Case("UpCunet3x", {}, "factor 1, 2, 4 or 8", "RealCUGAN"),
    Case("UpCunet4x", {}, 4, "RealCUGAN"),
    Case("SAFMN", {"dim": 8, "n_blocks": 2, "upscaling_factor": 2}, 2),
    Case("SAFMNBCIE", {"dim": 8, "n_blocks": 2, "num_layers": 2, "upscaling_factor": 2}, 1),
    Case("DCTLSA", {"nf": 10, "num_modules": 6, "num_head": 5, "upscale": 2}, 2),
    Case("FFTformer", {"dim": 8, "num_blocks": [1, 1, 1], "num_refinement_blocks": 1}, 1),
    Case("NAFNet", {"width": 8, "enc_blk_nums": [1], "dec_blk_nums": [1]}, 1),
    Case("ATD", {**WINDOWS, "depths": [2], "upscale": 2, "upsampler": "pixelshuffledirect", "num_tokens": 8,
                 "category_size": 16}, 2),
    Case("MixDehazeNet", {"embed_dims": [8, 16, 32, 16, 8]}, 1),
    Case("DRUNet", {"in_nc": 4, "out_nc": 3, "nc": [8, 8, 8, 16], "nb": 2}, "noise level"),
    Case("DnCNN", {"in_nc": 3, "out_nc": 3, "nc": 8, "nb": 5}, 1),
    Case("DnCNN", {"in_nc": 1, "out_nc": 1, "nc": 8, "nb": 5}, "1 → 1 channels", about="gray"),
    Case("IPT", {"patch_size": 48, "n_feats": 8, "num_layers": 1, "num_heads": 2, "scale": [2]},
         "as workers run it"),
    Case("DRCT", {**WINDOWS, "depths": [1], "upscale": 2, "upsampler": "pixelshuffle", "gc": 8}, 2),
    Case("ESRGAN", {"num_filters": 8, "num_blocks": 1, "scale": 2}, 2),
    Case("ESRGAN", {"num_filters": 8, "num_blocks": 1, "scale": 4, "shuffle_factor": 2, "in_nc": 12}, 2,
         about="unshuffle"),
    Case("PLKSR", {"dim": 16, "n_blocks": 2, "upscaling_factor": 2}, 2),
    Case("RealPLKSR", {"dim": 16, "n_blocks": 2, "upscaling_factor": 2}, 2, "PLKSR"),
    Case("RealPLKSR", {"dim": 16, "n_blocks": 2, "upscaling_factor": 2, "dysample": True}, 2, "PLKSR", "dysample"),
    Case("RetinexFormer", {"n_feat": 8, "stage": 1}, 1),
    Case("HVICIDNet", {"channels": [8, 8, 16, 32], "heads": [1, 2, 4, 8]}, 1),
    Case("SeemoRe", {"num_experts": 2, "num_layers": 1, "embedding_dim": 16, "scale": 2}, 2),
    Case("MoSR", {"upscale": 2, "n_block": 2, "dim": 16}, 2),
    Case("MoESR", {"scale": 2, "dim": 16, "n_blocks": 1, "n_block": 1}, 2),
    Case("RCAN", {"scale": 2, "n_resgroups": 1, "n_resblocks": 1, "n_feats": 16, "reduction": 4}, 2),
    Case("RCAN", {"scale": 4, "n_resgroups": 1, "n_resblocks": 1, "n_feats": 16, "reduction": 4, "unshuffle_mod": True},
         4, about="unshuffle"),
    Case("FDAT", {"embed_dim": 16, "num_groups": 1, "depth_per_group": 2, "num_heads": 2, "scale": 2, "mid_dim": 16},
         2),
    Case("AuraSR", {"dim": 16, "image_size": None, "input_image_size": None, "self_attn_dim_head": 8,
                    "style_network": {"dim_in": 8, "dim_out": 32, "depth": 2}, "attn_depths": (2, 2, 2, 1, 1),
                    "up_dim_mults": (1, 1, 1, 1, 1), "down_dim_mults": (1, 1, 1),
                    "mid_attn_depth": 1, "skip_connect_scale": 0.4}, 4),
)  # fmt: skip
