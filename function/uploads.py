"""Uploads directly to the object store with presigned URLs, because Lambda accepts at most 6 MB per request."""

from datetime import timedelta

from upres.core import api_keys, keys
from upres.core.api import UploadLink, UploadRequest
from upres.core.errors import TooManyBytes
from upres.core.schema import now
from upres.function.access import Caller
from upres.function.services import Services


def create(services: Services, request: UploadRequest, caller: Caller) -> UploadLink:
    """Make a presigned URL for the upload of one image file of exactly `request.bytes` bytes.

    The size is charged to the quota of the API key. Raises TooManyBytes, QuotaExceeded, StoreUnavailable or redis-py's
    errors.
    """
    limit = services.settings.max_input_bytes
    if request.bytes > limit:
        raise TooManyBytes.for_limit(limit)
    if caller.key:
        api_keys.charge_bytes(services.redis, caller.key, request.bytes)
    image_key = keys.new_upload(request.sha256)
    expires_at = now() + timedelta(seconds=services.store.lasting(keys.UPLOAD_LINK_SECONDS))
    url = services.store.presign_put(image_key, request.bytes)
    return UploadLink(image_key=image_key, upload_url=url, expires_at=expires_at)
