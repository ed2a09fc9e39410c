"""The presigned URLs of results."""

from upres.core import keys
from upres.core.errors import UpresError
from upres.core.schema import Result
from upres.core.storage import Store


class NotTheirs(UpresError):
    """An object is no image of the owner's jobs. Callers catch it and do what is right for their reader."""


def link(store: Store, owner: str | None, key: str, file_name: str) -> str:
    """Return a presigned URL of an image of a result, given by its object key, valid for keys.LINK_SECONDS.

    A browser saves the image as `file_name`. Whoever can write events could otherwise get a link to any object, so
    NotTheirs is raised unless the image is of a result of the job's owner.
    """
    if not keys.is_result_of(owner, key):
        raise NotTheirs(f"{key[:200]!r} is no result of a job of {owner or keys.NO_OWNER}")
    return store.presign(key, file_name)


def original_name(file_name: str) -> str:
    """Return the file name of the bicubic original of a result with this file name."""
    return f"bicubic_{file_name}"


def linked(store: Store, owner: str | None, result: Result) -> Result:
    """Return the same result with new presigned URLs of its images. Raises NotTheirs.

    The address of an original that is made on request stays: it is no presigned URL.
    """
    original = result.original_image_url if result.original == "lazy" else original_link(store, owner, result)
    fresh = {"sr_image_url": enlarged_link(store, owner, result), "original_image_url": original}
    return result.model_copy(update=fresh)


def enlarged_link(store: Store, owner: str | None, result: Result) -> str:
    """Return a presigned URL of the enlarged image. Raises NotTheirs."""
    return link(store, owner, store.key(result.sr_image_uri), result.file_name)


def original_link(store: Store, owner: str | None, result: Result) -> str:
    """Return a presigned URL of the original, whether or not it is made. Raises NotTheirs."""
    return link(store, owner, store.key(result.original_image_uri), original_name(result.file_name))
