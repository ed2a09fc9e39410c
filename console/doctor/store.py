"""Checks of the object store: files, presigned URLs, lifecycle rules and the default model."""

import secrets
import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime

import httpx

from upres.console.doctor.finding import Finding, fault, ok, warning
from upres.console.doctor.redis_server import clock_offset
from upres.core import keys, model_files, registry
from upres.core.errors import ModelError, ModelNotFound, SettingsError, StoreUnavailable, UpresError
from upres.core.settings import Settings
from upres.core.storage import Store

DATA = b"upres doctor was here"
LINK_TIMEOUT = 5
PREFIXES = ("uploads/", "results/", "checkpoints/")


def check(store: Store, settings: Settings) -> Iterator[Finding]:
    """Run all checks; only the first one when the bucket cannot be reached."""
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
    """How to fix a bucket that cannot be used, depending on the kind of failure."""
    if store.failures["no_answer"]:
        return "Start it, or set UPRES_S3_ENDPOINT_URL to its address, and allow connections from this machine to it."
    return "Create the bucket named in UPRES_S3_BUCKET, and let these credentials list, read and write it."


def _files(store: Store, settings: Settings) -> Iterator[Finding]:
    key = keys.upload(f"doctor-{secrets.token_hex(8)}")
    try:
        store.put(key, DATA)
        if store.get(key) != DATA:
            yield fault("store files", "a file was read back with other contents", "Use a store that is consistent.")
            return
        yield ok("store files", "one was written and read")
        yield from _link(store, key, settings)
    except UpresError as error:
        fix = "Let these credentials put, get and delete objects under uploads/ and results/."
        yield fault("store files", str(error), fix)
    finally:
        _clear(store, key)


def _link(store: Store, key: str, settings: Settings) -> Iterator[Finding]:
    """Check that a presigned URL works, as clients use it. The response also contains the time of the store."""
    link = store.presign(key, "doctor.txt")
    host = httpx.URL(link).copy_with(path="/", query=None)
    fix = "Set UPRES_S3_PUBLIC_URL to the address of the store for clients; presigned URLs are made for it."
    try:
        trusted = httpx.create_ssl_context()
        if settings.ca_file:
            trusted.load_verify_locations(settings.ca_file)
        answer = httpx.get(link, timeout=LINK_TIMEOUT, verify=trusted)
    except httpx.HTTPError as error:
        if settings.s3_public_url not in (None, settings.s3_endpoint_url):
            fix = "Run doctor where clients run: UPRES_S3_PUBLIC_URL is the address for them."
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
    """Check that lifecycle rules delete old files, but no models."""
    ruled = store.expiring()
    if ruled is None:
        return warning("store lifecycle", "its rules cannot be read", f"Delete what is older than {_ages()}.")
    if any("models/".startswith(one) for one in ruled):
        fix = "Rules as in infra/aws/bucket.yml delete under uploads/, results/ and checkpoints/ only."
        return fault("store lifecycle", "the rules also delete models", fix)
    missing = [prefix for prefix in PREFIXES if not any(prefix.startswith(one) for one in ruled)]
    if missing:
        fix = f"Rules as in infra/aws/bucket.yml delete what is older than {_ages()}."
        return warning("store lifecycle", f"nothing under {', '.join(missing)} is ever deleted", fix)
    return ok("store lifecycle", "old files are deleted")


def _ages() -> str:
    return f"{keys.OBJECT_DAYS} days under uploads/ and results/, a day under checkpoints/"


def _model(store: Store, name: str) -> Finding:
    """Check that all files of the stable version of a model, and of its base, are in the store and correct."""
    what = f"model {name}"
    try:
        version = registry.labels(store, name).labels[registry.STABLE]
        digest, count = _check_version(store, name, version)
    except ModelNotFound as error:
        return fault(what, str(error), f"Put it there: upres models push {name}")
    except (ModelError, UpresError) as error:
        fix = "Push the version again under another name, or go back: upres models rollback " + name
        return fault(what, str(error), fix)
    return ok(what, f"version {version}, {digest[:12]}, {count} files are correct")


def _check_version(store: Store, name: str, version: str) -> tuple[str, int]:
    """Return a version's digest, and the number of its files and its base's. Raises ModelNotFound or ModelError."""
    found, digest = registry.manifest(store, name, version)
    for file in found.files:
        model_files.check(found, file.file, store.get(keys.model(name, version, file.file)), file.sha256)
    if found.mix is None:
        return digest, len(found.files)
    base, count = _check_version(store, found.mix.model, found.mix.version)
    if base != found.mix.digest:
        raise ModelError(f"Its base, model {found.mix.model!r} {found.mix.version}, was changed in the store.")
    return digest, len(found.files) + count


def _clear(store: Store, key: str) -> None:
    try:
        store.delete([key])
    except UpresError:
        return
