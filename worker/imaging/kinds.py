"""Finds out the kind of a file by its first bytes. Pure."""

READ = ("PNG", "JPEG", "WebP", "AVIF", "HEIC", "JPEG XL", "JPEG 2000", "TIFF", "BMP", "GIF")
"""The kinds that are read."""
NAMED = f"{', '.join(READ[:-1])} or {READ[-1]}"
SIGNATURES = {
    b"\x89PNG": "PNG", b"\xff\xd8\xff": "JPEG", b"GIF8": "GIF", b"BM": "BMP",
    b"II*\0": "TIFF", b"MM\0*": "TIFF", b"II+\0": "TIFF", b"MM\0+": "TIFF",
    b"\0\0\0\x0cjP  ": "JPEG 2000", b"\xff\x4f\xff\x51": "JPEG 2000",
    b"\0\0\0\x0cJXL ": "JPEG XL", b"\xff\x0a": "JPEG XL",
    b"IIU\0": "RAW", b"IIRO": "RAW", b"IIRS": "RAW", b"FUJIFILM": "RAW", b"II\xbc\x01": "JPEG XR",
    b"%PDF": "PDF", b"%!PS": "PostScript", b"<svg": "SVG", b"8BPS": "Photoshop (PSD)", b"\0\0\x01\0": "icon (ICO)",
    b"v/1\x01": "OpenEXR", b"#?RADIANCE": "Radiance HDR", b"qoif": "QOI", b"DDS ": "DDS", b"\x8aMNG": "MNG",
}  # fmt: skip
"""First bytes of a file → its kind."""
BRANDS = {
    b"avif": "AVIF", b"avis": "AVIF", b"heic": "HEIC", b"heix": "HEIC", b"hevc": "HEIC", b"hevx": "HEIC",
    b"heim": "HEIC", b"heis": "HEIC", b"crx ": "RAW",
}  # fmt: skip
"""Brand of a file in a container of ISO (ISO/IEC 14496-12) → its kind."""
SEQUENCES = (b"avis", b"hevc", b"hevx", b"hevm", b"hevs", b"msf1")
"""Brands of image sequences (ISO/IEC 23008-12)."""
ANY_HEIF = (b"mif1", b"msf1", b"mif2")
"""Brands of HEIF with any codec: another brand of the file may say which."""


def kind_of(data: bytes) -> str | None:
    """Return the kind of a file, one of READ or another that is known; None if its first bytes mean nothing."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WebP"
    if data[:4] == b"II*\0" and data[8:10] == b"CR":  # Canon's CR2, a TIFF whose first page is a preview
        return "RAW"
    if data[4:8] == b"ftyp":
        return _by_brand(data)
    return next((kind for first, kind in SIGNATURES.items() if data.startswith(first)), None)


def is_sequence(data: bytes) -> bool:
    """Return whether a file is an animated AVIF or HEIC."""
    return data[4:8] == b"ftyp" and any(brand in SEQUENCES for brand in _brands(data))


def _by_brand(data: bytes) -> str:
    brands = _brands(data)
    known = next((BRANDS[brand] for brand in brands if brand in BRANDS), None)
    return known or ("HEIC" if brands[0] in ANY_HEIF else "video")


def _brands(data: bytes) -> list[bytes]:
    """Return the brands of a file in a container of ISO; the first is the main one."""
    end = min(int.from_bytes(data[:4], "big"), len(data), 256)
    return [data[8:12], *(data[start : start + 4] for start in range(16, end, 4))]
