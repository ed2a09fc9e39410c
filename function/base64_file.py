"""A file in base64, optionally in a data: URL, which is decoded while its text comes: only the file is kept.

Both alphabets of RFC 4648 are read, that of section 5 for URLs too, and the padding may be left out.
"""

from io import BytesIO

import pybase64

from upres.core.errors import FieldError, InvalidRequest, TooManyBytes

WHITE_SPACE = b" \t\n\v\f\r"
"""Bytes that are removed from base64: programs break its lines (RFC 2045)."""
STANDARD = bytes.maketrans(b"-_", b"+/")
"""From the alphabet for URLs to the standard one."""
SHOWN = 80
"""Maximum number of characters of an invalid text that an error quotes."""
SCHEME = b"data:"


class Base64File:
    """A file of at most `limit` bytes. Faults of its text are kept until `file` is called: other errors come first."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.restart()

    @classmethod
    def of(cls, text: str, limit: int) -> "Base64File":
        """The file whose whole text is given."""
        made = cls(limit)
        made.feed(text.encode(errors="surrogatepass"))
        return made

    def restart(self) -> None:
        """Forget the text, for another one that replaces it."""
        self._shown = b""
        self._head: bytes | None = b""
        self._rest = b""
        self._file = BytesIO()
        self._fault = ""
        self._is_too_large = False

    @property
    def size(self) -> int:
        """Bytes of the file up to now."""
        return self._file.tell()

    def feed(self, text: bytes) -> None:
        """Take the next piece of the text."""
        self._shown += text[: SHOWN - len(self._shown)] if len(self._shown) < SHOWN else b""
        if self._head is not None:
            text = self._without_scheme(text)
        if not (self._fault or self._is_too_large):
            self._decode(text)

    def file(self) -> bytes:
        """Return the whole file. Raises InvalidRequest or TooManyBytes."""
        if self._head is not None and not self._head.lower().startswith(SCHEME):
            self._decode(self._head)  # a text that is shorter than the scheme
        self._head = None
        rest, self._rest = self._rest, b""
        if b"=" not in rest and len(rest) > 1:  # one digit alone is no byte
            rest = rest.ljust(4, b"=")
        self._write(rest)
        if self._is_too_large:
            raise TooManyBytes.for_limit(self._limit)
        if self._fault:
            raise self._invalid(f"image_base64 is not valid base64 ({self._fault}).")
        if not self.size:
            raise self._invalid("image_base64 is empty; send the image file.")
        return self._file.getvalue()  # no copy

    def _without_scheme(self, text: bytes) -> bytes:
        """Return what follows the head of a data: URL; the whole text when it is none, b"" while that is not clear."""
        head = ((self._head or b"") + text).lstrip(WHITE_SPACE)
        start = head[: len(SCHEME)].lower()
        if start == SCHEME:
            _, comma, payload = head.partition(b",")
            self._head = None if comma else SCHEME
            return payload
        self._head = head if SCHEME.startswith(start) else None
        return b"" if self._head is not None else head

    def _decode(self, text: bytes) -> None:
        """Decode all groups of four digits but the last one, which may have padding."""
        dense = self._rest + text.translate(STANDARD, WHITE_SPACE)
        whole = max(0, len(dense) - 1) // 4 * 4
        self._rest = dense[whole:]
        if dense.find(b"=", 0, whole) >= 0:
            self._fail("Excess data after padding")
        else:
            self._write(dense[:whole])

    def _write(self, digits: bytes) -> None:
        if self._fault or self._is_too_large:
            return
        try:
            self._file.write(pybase64.b64decode(digits, validate=True))
        except ValueError as error:
            self._fail(str(error))
        if self.size > self._limit:
            self._is_too_large = True
            self._file = BytesIO()

    def _fail(self, fault: str) -> None:
        self._fault, self._file = fault, BytesIO()

    def _invalid(self, detail: str) -> InvalidRequest:
        given = self._shown.decode(errors="replace")
        return InvalidRequest([FieldError(field="image_base64", code="invalid_base64", given=given, detail=detail)])
