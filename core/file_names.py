r"""File names in text from outside, such as the path of a URL: names that stay in their folder on every system.

Windows takes `\` for a separator, `C:` for a drive, and some names for devices, with any extension
(https://learn.microsoft.com/windows/win32/fileio/naming-a-file).
"""

import re

MAX_BYTES = 200
"""Longest name in bytes of UTF-8. File systems allow 255; results have a longer name than their image."""
_SEPARATOR = re.compile(r"[/\\]")
_DRIVE = re.compile(r"^[A-Za-z]:")
_FORBIDDEN = re.compile(r'[<>:"|?*]')
_DEVICE = re.compile(r"(?i)^(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9\u00b9\u00b2\u00b3])\s*(\.|$)")


def plain(text: str) -> str:
    """Return the last component of a path, without what another system would read as more than a name.

    Non-printable characters, a drive, and dots and spaces at the end are left out, characters that Windows forbids
    become `_`, and `_` is put before the names of devices. Long names are cut. The name may be empty.
    """
    name = "".join(filter(str.isprintable, _SEPARATOR.split(text)[-1]))
    name = _FORBIDDEN.sub("_", _DRIVE.sub("", name)).strip(" ")
    name = name.encode(errors="replace")[:MAX_BYTES].decode(errors="ignore").rstrip(" .")
    return f"_{name}" if _DEVICE.match(name) else name


def stem(text: str) -> str:
    """Return the same without the extension: what is before the last dot, unless the name begins with it."""
    name = plain(text)
    before, dot, _ = name.rpartition(".")
    return before.rstrip(" .") or name if dot else name
