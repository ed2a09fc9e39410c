"""Results as people get them: with links that work for an hour from now."""

from upres.core.schema import Result
from upres.core.storage import Store


def linked(store: Store, result: Result) -> Result:
    """The same result with fresh links to its images."""
    return result.model_copy(
        update={
            "sr_image_url": store.presign(store.key(result.sr_image_uri), result.file_name),
            "original_image_url": store.presign(store.key(result.original_image_uri), f"bicubic_{result.file_name}"),
        }
    )
