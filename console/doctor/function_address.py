"""Checks of the function: it answers where the operator asks it, and where its answers send clients."""

from collections.abc import Iterator
from typing import NamedTuple

import httpx

from upres.console.doctor.finding import Finding, fault, ok, warning

TIMEOUT = 10
"""Timeout in seconds of a request to the function."""
WHAT = "public address"


class Answer(NamedTuple):
    """What the function answered to /readyz."""

    status: int
    address: str = ""
    """The address that its answers name to clients; empty when it tells none, as functions of earlier releases."""
    detail: str = ""
    """Why it is not ready."""
    location: str = ""
    """Where it redirects to."""


def check(server: str, public: str) -> Iterator[Finding]:
    """Check that the function answers at `server`, is ready, and that clients reach it at the address of its answers.

    `public` is UPRES_PUBLIC_URL here; when it is empty, the function tells its own.
    """
    try:
        answer = _ask(server)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        fix = _trusted(error, server) or "Start it (python -m upres.function), or set UPRES_URL to its URL."
        yield fault("function", f"does not answer at {server} ({error})", fix)
        answer = Answer(0)
    else:
        yield _ready(server, answer)
    if not public and not _is_downgraded(server, answer.address):
        public = answer.address  # the operator may ask from inside, at another address or port
    if public and _plain(public) != _plain(server):
        yield _reached(public)
    elif answer.address:
        yield _named(server, answer.address)


def _ask(url: str) -> Answer:
    """Raises httpx.HTTPError or httpx.InvalidURL."""
    answer = httpx.get(f"{url.rstrip('/')}/readyz", timeout=TIMEOUT)
    try:
        told = {name: str(value) for name, value in answer.json().items()}
    except (ValueError, AttributeError):
        told = {}
    location = answer.headers.get("Location", "")
    return Answer(answer.status_code, told.get("address", ""), told.get("detail", ""), location)


def _ready(url: str, answer: Answer) -> Finding:
    if answer.status == 200:
        return ok("function", f"ready at {url}")
    if not answer.detail:
        fix = "Start it (python -m upres.function), or set UPRES_URL to its URL."
        return fault("function", f"{url} is something else: it answers {answer.status}", fix)
    fix = "Check its own variables UPRES_REDIS_URL and UPRES_S3_…."
    return fault("function", f"not ready at {url}: {answer.detail}", fix)


def _reached(public: str) -> Finding:
    """Check the function at the address for clients."""
    try:
        answer = _ask(public)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        if fix := _trusted(error, public):
            return fault(WHAT, f"{public} has a certificate that clients do not trust ({error})", fix)
        fix = "Run doctor where clients run: this is the address that answers name to them (UPRES_PUBLIC_URL)."
        return warning(WHAT, f"{public} does not answer from here ({error})", fix)
    if answer.location:
        fix = "Set UPRES_PUBLIC_URL of the function to the address that answers by itself."
        return fault(WHAT, f"{public} redirects to {answer.location}", fix)
    if answer.status != 200 and not answer.detail:
        fix = "Route this address to the function, or set UPRES_PUBLIC_URL of the function to another."
        return fault(WHAT, f"{public} is something else: it answers {answer.status}", fix)
    return _named(public, answer.address)


def _named(asked: str, named: str) -> Finding:
    """Compare the address that was asked with the one that answers name."""
    fix = f"Set UPRES_PUBLIC_URL of the function to {asked}."
    if not named or _plain(named) == _plain(asked):
        return ok(WHAT, f"{asked}, as in answers")
    if _is_downgraded(asked, named):
        found = f"answers at {asked} name {named}: pages cannot follow jobs, and API keys travel unencrypted"
        return fault(WHAT, found, fix)
    return fault(WHAT, f"answers at {asked} name another address, {named}", fix)


def _is_downgraded(asked: str, named: str) -> bool:
    """Whether an answer to https names http on the same host."""
    return asked.startswith("https:") and named.startswith("http:") and _host(asked) == _host(named)


def _trusted(error: Exception, url: str) -> str:
    """What to do about a certificate that was refused; empty for another error."""
    if "CERTIFICATE_VERIFY_FAILED" not in str(error):
        return ""
    return f"Use a valid certificate for {_host(url)}; if its authority is a private one, name that in SSL_CERT_FILE."


def _plain(url: str) -> str:
    """A URL without the default port and a slash at the end, the host in small letters."""
    try:
        return str(httpx.URL(url)).rstrip("/")
    except httpx.InvalidURL:
        return url


def _host(url: str) -> str:
    try:
        return httpx.URL(url).host
    except httpx.InvalidURL:
        return ""
