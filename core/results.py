"""Results with fresh presigned URLs."""

from upres.core.schema import Result
from upres.core.storage import Store


def linked(store: Store, result: Result) -> Result:
    """Return the same result with new presigned URLs of its images, valid for keys.LINK_SECONDS."""
    return result.model_copy(
        update={
            "sr_image_url": store.presign(store.key(result.sr_image_uri), result.file_name),
            "original_image_url": store.presign(store.key(result.original_image_uri), f"bicubic_{result.file_name}"),
        }
    )
