"""Which files of a folder are images that can be enlarged, by their suffixes; and which files have no content.

The server decides by the content of a file, not by its name; a file that is named directly is sent with any suffix.
"""

import errno
import os
import stat
from pathlib import PurePath

from upres.core.errors import NotAnImage, UnsupportedImage
from upres.core.schema import OutputFormat

SUFFIXES: dict[str, OutputFormat] = {
    **dict.fromkeys((".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".jfi", ".pjpeg", ".pjp", ".mpo"), "jpeg"),
    **dict.fromkeys((".webp", ".avif", ".avifs", ".heic", ".heif", ".hif"), "webp"),
    **dict.fromkeys((".png", ".apng", ".tif", ".tiff", ".bmp", ".dib", ".jxl"), "png"),
    ".gif": "gif",
    **dict.fromkeys((".jp2", ".j2k", ".jpf", ".jpx", ".j2c", ".jpc"), "png"),
}
"""Suffix of an input file → format that the server is expected to choose for `auto`; another one is no error."""
NAMED = "PNG, JPEG, WebP, AVIF, HEIC, JPEG XL, JPEG 2000, TIFF, BMP or GIF"
RAW = ".3fr .arw .cr2 .cr3 .crw .dng .erf .iiq .kdc .mrw .nef .nrw .orf .pef .raf .rw2 .rwl .sr2 .srf .srw .x3f"
UNSUPPORTED = {
    **dict.fromkeys(RAW.split(), "a camera's raw file"),
    **dict.fromkeys((".psd", ".psb"), "a Photoshop file"),
    **dict.fromkeys((".svg", ".svgz", ".eps", ".ai", ".wmf", ".emf"), "a drawing without pixels"),
    **dict.fromkeys((".ico", ".icns", ".cur"), "an icon file"),
    **dict.fromkeys((".pbm", ".pgm", ".ppm", ".pnm", ".pam", ".pfm"), "a Netpbm file"),
    **dict.fromkeys((".exr", ".hdr"), "a high-dynamic-range file"),
    **dict.fromkeys((".jxr", ".wdp", ".hdp"), "a JPEG XR file"),
    ".xcf": "a GIMP file", ".kra": "a Krita file", ".tga": "a TGA file", ".pcx": "a PCX file", ".dds": "a DDS file",
    ".jls": "a JPEG-LS file", ".djvu": "a DjVu file", ".heics": "a HEIF sequence", ".jng": "a JNG file",
}  # fmt: skip
"""Suffixes of images that cannot be enlarged → what they are. In a folder they are named, and not passed over."""


def suffix(name: str) -> str:
    """The suffix of a file name, with its dot, in lower case; empty without one."""
    return PurePath(name).suffix.lower()


def is_image(name: str) -> bool:
    """Whether a file's suffix is that of an image, of whatever kind."""
    return suffix(name) in SUFFIXES or suffix(name) in UNSUPPORTED


def unsupported(name: str) -> UnsupportedImage | None:
    """The error for an image of a kind that cannot be enlarged; None for all other files."""
    if kind := UNSUPPORTED.get(suffix(name)):
        return UnsupportedImage(f"skipped, because it is {kind}; upres enlarges {NAMED}.")
    return None


def check(path: str) -> None:
    """Check that a path names a file with content. Raises NotAnImage, or OSError when there is no such file."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        if os.path.islink(path):
            broken = f"It is a link to {os.readlink(path)}, which does not exist"
            raise FileNotFoundError(errno.ENOENT, broken, path) from None
        raise
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    if not stat.S_ISREG(found.st_mode):
        raise NotAnImage(f"It is {_kind(found.st_mode)}; save its content to a file, and enlarge that.")
    if not found.st_size:
        raise NotAnImage("The file is empty.")


def _kind(mode: int) -> str:
    if stat.S_ISFIFO(mode):
        return "a pipe"
    return "a socket" if stat.S_ISSOCK(mode) else "a device"
