"""The object store: keeps files, gives links that work from here, forgets what is old, and has the models."""

import secrets
import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime

import httpx

from upres.console.doctor.finding import Finding, fault, ok, warning
from upres.console.doctor.redis_server import clock_offset
from upres.core import keys, registry
from upres.core.errors import ModelError, ModelNotFound, SettingsError, StoreUnavailable, UpresError
from upres.core.settings import Settings
from upres.core.storage import Store

DATA = b"upres doctor was here"
LINK_TIMEOUT = 5
PREFIXES = ("uploads/", "results/", "checkpoints/")


def check(store: Store, settings: Settings) -> Iterator[Finding]:
    """Everything about it, as far as one gets."""
    where = f"bucket {settings.s3_bucket} at {settings.s3_endpoint_url or 'AWS'}"
    try:
        store.ping()
    except SettingsError as error:
        yield fault("store", str(error), "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give the machine a role.")
        return
    except StoreUnavailable as error:
        yield fault("store", f"{where}: {error}", _help(store))
        return
    yield ok("store", where)
    yield from _files(store, settings)
    yield check_lifecycle(store)
    yield _model(store, settings.model)


def _help(store: Store) -> str:
    """What to do about a bucket that does not answer, by how it did not."""
    if store.failures["no_answer"]:
        return "Start it, or say in UPRES_S3_ENDPOINT_URL where it is, and let this machine through to it."
    return "Make the bucket named in UPRES_S3_BUCKET, and let these credentials list, read and write it."


def _files(store: Store, settings: Settings) -> Iterator[Finding]:
    key = keys.upload(f"doctor-{secrets.token_hex(8)}")
    try:
        store.put(key, DATA)
        if store.get(key) != DATA:
            yield fault("store files", "another file came back than was put there", "Use a store that is consistent.")
            return
        yield ok("store files", "put and got one")
        yield from _link(store, key, settings)
    except UpresError as error:
        fix = "Let these credentials put, get and delete objects under uploads/ and results/."
        yield fault("store files", str(error), fix)
    finally:
        _clear(store, key)


def _link(store: Store, key: str, settings: Settings) -> Iterator[Finding]:
    """Whether a link works as clients would use it; the answer also says what time it is there."""
    link = store.presign(key, "doctor.txt")
    host = httpx.URL(link).copy_with(path="/", query=None)
    fix = "Say in UPRES_S3_PUBLIC_URL how clients reach the store; links are made for that address."
    try:
        answer = httpx.get(link, timeout=LINK_TIMEOUT)
    except httpx.HTTPError as error:
        if settings.s3_public_url not in (None, settings.s3_endpoint_url):
            fix = "Look from where clients are: UPRES_S3_PUBLIC_URL is for them."
            yield warning("store links", f"{host} does not answer this machine ({error})", fix)
        else:
            yield fault("store links", f"{host} does not answer ({error})", fix)
        return
    if "Date" in answer.headers:
        yield clock_offset(
            "clock of the store", parsedate_to_datetime(answer.headers["Date"]).timestamp() - time.time() + 0.5
        )
    if answer.content == DATA:
        yield ok("store links", f"work at {host}")
    else:
        yield fault("store links", f"{host} answers {answer.status_code}", fix)


def check_lifecycle(store: Store) -> Finding:
    """Whether old files are deleted, and only those."""
    ruled = store.expiring()
    if ruled is None:
        return warning("store lifecycle", "the store tells no rules", f"Delete what is older than {_ages()}.")
    if any("models/".startswith(one) for one in ruled):
        fix = "Rules as in infra/aws/bucket.yml delete under uploads/, results/ and checkpoints/ only."
        return fault("store lifecycle", "models are deleted some day, too", fix)
    missing = [prefix for prefix in PREFIXES if not any(prefix.startswith(one) for one in ruled)]
    if missing:
        fix = f"Rules as in infra/aws/bucket.yml delete what is older than {_ages()}."
        return warning("store lifecycle", f"nothing under {', '.join(missing)} is ever deleted", fix)
    return ok("store lifecycle", "old files are deleted")


def _ages() -> str:
    return f"{keys.OBJECT_DAYS} days under uploads/ and results/, a day under checkpoints/"


def _model(store: Store, name: str) -> Finding:
    """Whether the stable version of a model is all there, byte by byte."""
    what = f"model {name}"
    try:
        version = registry.labels(store, name).labels[registry.STABLE]
        found, digest = registry.manifest(store, name, version)
        for file in found.files:
            registry.check(found, file.file, store.get(keys.model(name, version, file.file)), file.sha256)
    except ModelNotFound:
        return fault(what, "is not in the store", "Put one there: upres models push faithful")
    except (ModelError, UpresError) as error:
        fix = "Push the version again under another name, or go back: upres models rollback " + name
        return fault(what, str(error), fix)
    return ok(what, f"version {version}, {digest[:12]}, {len(found.files)} files as they should be")


def _clear(store: Store, key: str) -> None:
    try:
        store.delete([key])
    except UpresError:
        return
