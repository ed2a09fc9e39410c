"""The presigned URLs of results."""

from upres.core import keys
from upres.core.errors import UpresError
from upres.core.schema import Result
from upres.core.storage import Store


class NotTheirs(UpresError):
    """An object is no image of the owner's jobs. Callers catch it and do what is right for their reader."""


def links(store: Store, owner: str | None, enlarged: str, original: str, file_name: str) -> tuple[str, str]:
    """Return presigned URLs of both images of a result, given by their object keys, valid for keys.LINK_SECONDS.

    A browser saves the enlarged image as `file_name`, and the bicubic one as `bicubic_{file_name}`. Whoever can write
    events could otherwise get a link to any object, so NotTheirs is raised unless both are results of the job's owner.
    """
    for key in (enlarged, original):
        if not keys.is_result_of(owner, key):
            raise NotTheirs(f"{key[:200]!r} is no result of a job of {owner or keys.NO_OWNER}")
    return store.presign(enlarged, file_name), store.presign(original, f"bicubic_{file_name}")


def linked(store: Store, owner: str | None, result: Result) -> Result:
    """Return the same result with new presigned URLs of its images. Raises NotTheirs."""
    images = (store.key(result.sr_image_uri), store.key(result.original_image_uri))
    enlarged, original = links(store, owner, *images, result.file_name)
    return result.model_copy(update={"sr_image_url": enlarged, "original_image_url": original})
