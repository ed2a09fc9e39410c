"""The presigned URLs of results."""

from upres.core.schema import Result
from upres.core.storage import Store


def links(store: Store, enlarged: str, original: str, file_name: str) -> tuple[str, str]:
    """Return presigned URLs of both images of a result, given by their object keys, valid for keys.LINK_SECONDS.

    A browser saves the enlarged image as `file_name`, and the bicubic one as `bicubic_{file_name}`.
    """
    return store.presign(enlarged, file_name), store.presign(original, f"bicubic_{file_name}")


def linked(store: Store, result: Result) -> Result:
    """Return the same result with new presigned URLs of its images."""
    images = (store.key(result.sr_image_uri), store.key(result.original_image_uri))
    enlarged, original = links(store, *images, result.file_name)
    return result.model_copy(update={"sr_image_url": enlarged, "original_image_url": original})
