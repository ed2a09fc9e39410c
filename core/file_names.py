r"""File names in text from outside, such as the path of a URL: names that stay in their folder on every system.

Windows takes `\` for a separator, `C:` for a drive, and some names for devices, with any extension
(https://learn.microsoft.com/windows/win32/fileio/naming-a-file).
"""

import hashlib
import re

MAX_BYTES = 200
"""Longest name in bytes of UTF-8. File systems allow 255; results have a longer name than their image."""
MAX_SUFFIX_BYTES = 16
"""Longest extension, in bytes with its dot, that a shortened name keeps."""
DIGEST_DIGITS = 8
"""Hexadecimal digits of the digest in a shortened text: its end often tells photos of one series apart."""
_SEPARATOR = re.compile(r"[/\\]")
_DRIVE = re.compile(r"^[A-Za-z]:")
_FORBIDDEN = re.compile(r'[<>:"|?*]')
_DEVICE = re.compile(r"(?i)^(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9\u00b9\u00b2\u00b3])\s*(\.|$)")


def plain(text: str) -> str:
    """Return the last component of a path, without what another system would read as more than a name.

    Non-printable characters, a drive, and dots and spaces at the end are left out, characters that Windows forbids
    become `_`, and `_` is put before the names of devices. Long names are shortened. The name may be empty.
    """
    name = "".join(filter(str.isprintable, _SEPARATOR.split(text)[-1]))
    name = _FORBIDDEN.sub("_", _DRIVE.sub("", name)).strip(" ")
    name = _fitting(name.rstrip(" ."))
    return f"_{name}" if _DEVICE.match(name) else name


def shortened(text: str, most: int) -> str:
    """Return a text with at most `most` bytes; of a longer one its beginning, `~` and a digest of the whole.

    So different texts stay different, and one text is shortened in the same way each time.
    """
    if length(text) <= most:
        return text
    digest = hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()
    end = f"~{digest[:DIGEST_DIGITS]}"
    while text and length(text + end) > most:
        text = text[:-1]
    return text.rstrip(" .") + end


def length(text: str) -> int:
    """Return the length of a file name in bytes of UTF-8, which file systems limit. It may have any bytes (PEP 383)."""
    return len(text.encode(errors="surrogateescape"))


def _fitting(name: str) -> str:
    """Return a name of at most MAX_BYTES, which keeps its extension if it is a short one."""
    before, dot, extension = name.rpartition(".")
    suffix = f".{extension}" if before and dot and length(extension) < MAX_SUFFIX_BYTES else ""
    return shortened(name.removesuffix(suffix), MAX_BYTES - length(suffix)) + suffix


def stem(text: str) -> str:
    """Return the same without the extension: what is before the last dot, unless the name begins with it."""
    name = plain(text)
    before, dot, _ = name.rpartition(".")
    return before.rstrip(" .") or name if dot else name
