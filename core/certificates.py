"""The operator's own certificate authorities (UPRES_CA_FILE), which are trusted in addition to the usual ones."""

import ssl
import tempfile
import weakref
from pathlib import Path


def check(path: Path) -> None:
    """Raise ValueError, with a sentence for the operator, unless the file contains certificates in PEM (RFC 7468)."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except ssl.SSLError:
        raise ValueError(f"{path} contains no certificate in PEM format (-----BEGIN CERTIFICATE-----).") from None
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}.") from None


class Bundle:
    """A temporary file with the certificates of several PEM files; it is deleted with this object. Raises OSError."""

    def __init__(self, *paths: Path) -> None:
        file = tempfile.NamedTemporaryFile(prefix="upres-", suffix=".pem")  # noqa: SIM115  # open as long as self
        weakref.finalize(self, file.close)
        file.write(b"\n".join(path.read_bytes() for path in paths))
        file.flush()
        self.path = file.name
