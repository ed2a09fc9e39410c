"""Writes of documents in the object store that several processes may change at once: no change is lost.

The store itself refuses the second of two writes, when it honours the conditions If-None-Match and If-Match (RFC 9110):
AWS S3 does, MinIO does, rclone does not. So each process tries it once, with an object for that. Where the store does
not, a lock in Redis lets one process write after the other; without Redis too, a warning says what may happen.
"""

import random
import time
from collections.abc import Callable
from contextlib import suppress

from upres.core import keys, registry_lock
from upres.core.errors import StoreUnavailable
from upres.core.storage import ConditionUnknown, ObjectChanged, ObjectNotFound, Store, Stored

Make = Callable[[bytes | None], bytes]
"""Makes the new document of the present one, None if there is none. It may be called several times."""

TRIES = 40
"""Conditional writes of one change. Of those that meet, one succeeds, so this many others may come first."""
LONGEST_PAUSE = 0.3
"""Longest pause in seconds before the next of them."""
PROBE = b"With this object upres finds out whether the store honours If-None-Match and If-Match.\n"
PROBES = 5
NO_ETAG = '"00000000000000000000000000000000"'

_honours: dict[tuple[str | None, str], bool] = {}


def change(store: Store, key: str, make: Make) -> bytes:
    """Read a document, make the new one of it, and write it, unless it is the same. Returns the new one.

    Raises what `make` raises, and StoreUnavailable, also when others change the document all the time.
    """
    if honours_conditions(store):
        return _change_on_condition(store, key, make)
    with registry_lock.held(store.settings) as check_held:
        found = _read(store, key)
        made = make(found and found.data)
        if found is None or made != found.data:
            check_held()
            store.put(key, made, "application/json")
        return made


def create(store: Store, key: str, data: bytes) -> bytes:
    """Write a document if there is none. Returns the one that is there then. Raises StoreUnavailable."""
    return change(store, key, lambda found: data if found is None else found)


def _change_on_condition(store: Store, key: str, make: Make) -> bytes:
    for number in range(TRIES):
        found = _read(store, key)
        made = make(found and found.data)
        if found and made == found.data:
            return made
        try:
            store.put_if(key, made, found.etag if found else None)
            return made
        except ObjectChanged:
            now = _read(store, key)
            if now and now.data == made:  # written by ourselves: the answer was lost, and botocore wrote again
                return made
            time.sleep(random.uniform(0, min(LONGEST_PAUSE, 0.01 * 2**number)))
    raise StoreUnavailable(registry_lock.BUSY)


def _read(store: Store, key: str) -> Stored | None:
    with suppress(ObjectNotFound):
        return store.read(key)
    return None


def honours_conditions(store: Store) -> bool:
    """Whether the store honours conditional writes; it is tried once per process. Raises StoreUnavailable."""
    place = (store.settings.s3_endpoint_url, store.bucket)
    if place not in _honours:
        try:
            with suppress(ObjectChanged):
                store.put_if(keys.WRITE_PROBE, PROBE, None)
            _honours[place] = _refuses(store, None) and _refuses(store, NO_ETAG) and _accepts(store)
        except ConditionUnknown:
            _honours[place] = False
    return _honours[place]


def _accepts(store: Store) -> bool:
    """Whether the store accepts a write whose condition holds; not if a proxy changes the ETags, for example.

    It is tried several times, because other processes may try it at the same time.
    """
    for _ in range(PROBES):
        found = _read(store, keys.WRITE_PROBE)
        if found and found.etag and not _refuses(store, found.etag):
            return True
    return False


def _refuses(store: Store, etag: str | None) -> bool:
    """Whether the store refuses a write whose condition does not hold."""
    try:
        store.put_if(keys.WRITE_PROBE, PROBE, etag)
    except ObjectChanged:
        return True
    return False
