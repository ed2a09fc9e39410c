"""Which versions may become stable: those that were measured to lose little, and those that nothing was taken from."""

from upres.core.errors import ModelError
from upres.core.manifest import Manifest

MAX_LOSS_DB = 0.1
"""A version that loses more PSNR (in dB) than this against the version it was made of cannot become stable."""
LOSS = "psnr_loss_db"
"""Name of that measurement in a manifest."""
SMALLER = ("-float16", "-int8")
"""Ends of the names of versions that `upres models variant` makes and measures."""


def check(manifest: Manifest) -> None:
    """Raise ModelError when a version loses too much, or when a smaller one was not measured."""
    is_smaller = manifest.version.endswith(SMALLER)
    for network in manifest.networks:
        lost = network.quality.get(LOSS, None if is_smaller or "int8" in network.precisions else 0)
        if lost is None:
            raise ModelError(
                f"Model {manifest.name!r} {manifest.version} was made smaller, and nobody measured what it loses; it "
                "cannot become stable. Make it again: upres models variant"
            )
        if not lost <= MAX_LOSS_DB:  # so that NaN is refused too
            raise ModelError(
                f"Model {manifest.name!r} {manifest.version} loses {lost:g} dB against the version it was made of; "
                f"with more than {MAX_LOSS_DB:g} dB it cannot become stable."
            )
