"""Checks the address of Redis, so that a mistake in it is one sentence, without the password that it may contain."""

from urllib.parse import SplitResult, parse_qs, urlsplit

SCHEMES = ("redis", "rediss", "unix")
OPTIONS = ("db", "ssl_cert_reqs", "ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_check_hostname")
"""Options of redis-py that may follow a `?`; upres sets all others itself."""
PORTS = range(1, 65536)
ENCODE = "must be percent-encoded in the password: / as %2F, # as %23, ? as %3F, [ as %5B, ] as %5D, @ as %40"


def checked(address: str) -> str:
    """Return the address of Redis, stripped. Raises ValueError, with a message without secrets, if it is wrong."""
    address = address.strip()
    if address.partition("://")[0] not in SCHEMES or "://" not in address:
        raise ValueError("must start with redis://, rediss:// or unix://")
    try:
        parts = urlsplit(address)
    except ValueError:
        raise ValueError(f"special characters {ENCODE}") from None
    if parts.fragment or ("@" in parts.path + parts.query and "@" not in parts.netloc):
        raise ValueError(f"special characters {ENCODE}")
    if parts.scheme != "unix":
        _check_port(parts)
        _check_database(parts.path.strip("/"))
    _check_options(parts)
    return address


def _check_port(parts: SplitResult) -> None:
    try:
        port = parts.port
    except ValueError:
        port = 0
    if port is not None and port not in PORTS:
        raise ValueError(f"the port must be a number from 1 to 65535; special characters {ENCODE}")


def _check_database(text: str) -> None:
    if text and not (text.isascii() and text.isdecimal()):
        raise ValueError(f"the database must be a number, such as in redis://host:6379/0, not {text[:20]!r}")


def _check_options(parts: SplitResult) -> None:
    options = parse_qs(parts.query, keep_blank_values=True)
    if "ssl" in options or "tls" in options:
        raise ValueError("TLS is chosen by rediss:// at the beginning, not by an option")
    unknown = next((name for name in options if name not in OPTIONS), None)
    if unknown is not None:
        raise ValueError(f"the option {unknown[:20]!r} is not known; known are {', '.join(OPTIONS)}")
    for database in options.get("db", ()):
        _check_database(database)
