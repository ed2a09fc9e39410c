"""How requests reach the server: its address, the API key, proxies and certificates.

A mistake in one of these is not passed by trying again: it becomes a ClientSetupError, which names variable and cause.
"""

import os
import socket
import ssl
import string
from collections.abc import Iterator
from urllib.request import getproxies, proxy_bypass

import httpx

from upres.client.errors import ClientSetupError

DEFAULT_URL = "http://127.0.0.1:8000"
KEY_CHARACTERS = set(string.ascii_letters + string.digits + string.punctuation)
TRUST = "give --cacert FILE, or verify= in Python"
Verify = str | bool | ssl.SSLContext
"""As in requests: a file of CA certificates, or False for no check; or an SSL context."""


def server_url(given: str | None) -> str:
    """The address of the server, by default that in UPRES_URL, without a slash at the end. Raises ClientSetupError."""
    name = "UPRES_URL" if given in (None, "", os.environ.get("UPRES_URL")) else "The address of the server"
    text = (given or os.environ.get("UPRES_URL") or DEFAULT_URL).strip()
    url = text if "://" in text else f"http://{text}"
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise ClientSetupError(f"{name} is not a URL: {text!r} ({error}).") from None
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ClientSetupError(f"{name} must begin with http:// or https:// and a host; it is {text!r}.")
    if parsed.port is not None and not 0 < parsed.port <= 65535:
        raise ClientSetupError(f"{name} has the port {parsed.port}; ports end at 65535.")
    if parsed.query or parsed.fragment:
        raise ClientSetupError(f"{name} must not contain ? or #; it is {text!r}.")
    return url.rstrip("/")


def api_key(given: str | None) -> str | None:
    """The API key, by default that in UPRES_API_KEY; None without one. Raises ClientSetupError."""
    key = (given or os.environ.get("UPRES_API_KEY") or "").strip()
    if wrong := sorted(set(key) - KEY_CHARACTERS):
        name = "UPRES_API_KEY" if given in (None, "", os.environ.get("UPRES_API_KEY")) else "The API key"
        shown = ", ".join(repr(one) for one in wrong[:3])
        raise ClientSetupError(f"{name} contains {shown}, which no key has; copy it again, without quotes.")
    return key or None


def ssl_context(verify: Verify) -> ssl.SSLContext | bool:
    """The SSL context for `verify`. Raises ClientSetupError."""
    if not isinstance(verify, str):
        path = os.environ.get("SSL_CERT_FILE")
        if verify is True and path and not os.path.exists(path):
            raise ClientSetupError(f"SSL_CERT_FILE names {path}, which does not exist.")
        return verify
    try:
        return ssl.create_default_context(cafile=verify)
    except (OSError, ssl.SSLError) as error:
        raise ClientSetupError(f"The CA certificates {verify} cannot be read: {_cause(error)}.") from None


def setup_error(error: Exception) -> ClientSetupError:
    """The error for a client that cannot be made: httpx refuses what the proxy variables say."""
    names = ", ".join(sorted(_proxy_variables())) or "the proxy settings"
    return ClientSetupError(f"The proxy in {names} cannot be used: {_cause(error)}.")


def lasting_cause(url: httpx.URL, error: Exception, trust: str = TRUST) -> str | None:
    """Why a server can never be reached in this way, as a clause; None when another attempt may succeed.

    `trust` says how to trust a certificate.
    """
    for cause in _chain(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            detail = cause.verify_message or cause.reason
            return f"has a certificate that is not trusted ({detail}); {trust}"
        if isinstance(cause, ssl.SSLError) and cause.reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE"):
            return "does not speak https; is it an http:// address?"
        if isinstance(cause, socket.gaierror) and cause.errno in (socket.EAI_NONAME, _EAI_NODATA):
            return f"does not exist: the host name {url.host} is unknown"
        if isinstance(cause, httpx.UnsupportedProtocol | httpx.LocalProtocolError):
            return f"cannot be asked: {cause}"
    return None


def proxy_of(url: httpx.URL) -> str | None:
    """The variable and address of the proxy that is used for a URL, without its password; None without a proxy."""
    if proxy_bypass(url.host):
        return None
    found = getproxies()
    for scheme in (url.scheme, "all"):
        if address := found.get(scheme):
            name = next((one for one in _proxy_variables() if one.lower() == f"{scheme}_proxy"), f"{scheme}_proxy")
            return f"{name} ({address.rpartition('@')[2]})"
    return None


_EAI_NODATA = getattr(socket, "EAI_NODATA", socket.EAI_NONAME)


def _proxy_variables() -> list[str]:
    return [name for name in os.environ if name.lower() in ("http_proxy", "https_proxy", "all_proxy")]


def _cause(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) and error.strerror else str(error)).rstrip(".")


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error and its causes."""
    seen: set[int] = set()
    while error and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
