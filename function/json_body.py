"""A request body in JSON that is taken apart while it comes: image_base64 is decoded, and all else is short.

JSON parsers for streams, such as ijson, collect a whole string before they hand it out. This is no parser: it finds the
strings of a document, and leaves the document, with long strings cut short, to one.
"""

import codecs
import json
import re

from upres.core.errors import BodyTooLarge
from upres.function.base64_file import Base64File
from upres.function.parse import MAX_VALUES, invalid_json, too_many_values

TEXT_BYTES = 128 * 1024
"""Bytes of a string that are kept: they suffice to refuse it, because no field but the image has more than 8192
characters, and one character takes at most 12 bytes (two escapes)."""
REST_BYTES = 256 * 1024
"""Maximum bytes that are kept, which is all but the image."""
CONTROL = bytes(range(32))
"""Bytes that a JSON string may contain as escapes only (RFC 8259, section 7)."""
IMAGE = "image_base64"

_MARK = re.compile(rb'["{}\[\],:]')
_SPACE = re.compile(rb"[ \t\n\r]+")
_CONTENT = re.compile(rb'(?:[^"\\\x00-\x1f]++|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*+')
"""The content of a string up to its end, or to an escape that is invalid or not yet complete."""
ESCAPE_BYTES = 6
QUOTE, BACKSLASH = b'"\\'


class JsonBody:
    """Takes a JSON document in pieces, cut anywhere. `image` gets the text of the last image_base64 of its object.

    `feed` and `finish` raise InvalidJson as soon as the document cannot be JSON or has more than MAX_VALUES commas and
    brackets, and BodyTooLarge when there is more than REST_BYTES besides the image.
    """

    def __init__(self, image: Base64File, instead: str) -> None:
        self.image = image
        self._instead = instead
        self._first = b""
        self._decoder: codecs.IncrementalDecoder | None = None
        self._is_begun = False
        self._carried = b""
        self._rest = bytearray()
        self._values = 0
        self._depth = 0
        self._is_key_next = False
        self._key_is_image = False
        self._in_text = self._in_image = False
        self._begin = 0
        self._room = 0

    @property
    def held(self) -> int:
        """Bytes that are kept in memory."""
        return len(self._rest) + self.image.size

    def feed(self, data: bytes) -> None:
        """Take the next piece of the body."""
        if not self._is_begun:
            self._first += data
            if len(self._first) < 4:
                return
            data = self._begun()
        self._scan(self._in_utf8(data))

    def finish(self) -> bytes:
        """Return the document at its end, with the text of image_base64 empty, and other long strings cut short."""
        self._scan(self._in_utf8(b"" if self._is_begun else self._begun(), final=True))
        if self._carried:
            raise invalid_json(self._instead)
        return bytes(self._rest)

    def _begun(self) -> bytes:
        """Find out the encoding, as json.loads does, and return the first bytes."""
        self._is_begun = True
        encoding = json.detect_encoding(self._first)
        if not encoding.startswith("utf-8"):
            self._decoder = codecs.getincrementaldecoder(encoding)("surrogatepass")
        return self._first

    def _in_utf8(self, data: bytes, final: bool = False) -> bytes:
        if self._decoder is None:
            return data
        try:
            return self._decoder.decode(data, final).encode(errors="surrogatepass")
        except ValueError:
            raise invalid_json(self._instead) from None

    def _scan(self, data: bytes) -> None:
        self._values += sum(data.count(mark) for mark in (b",", b"[", b"{"))
        if self._values > MAX_VALUES:
            raise too_many_values(self._instead)
        data, self._carried = self._carried + data, b""
        at = 0
        while at < len(data):
            at = self._inside(data, at) if self._in_text else self._outside(data, at)

    def _outside(self, data: bytes, at: int) -> int:
        """Take what comes before the next mark, and the mark. Return the position after it."""
        found = _MARK.search(data, at)
        end = found.start() if found else len(data)
        self._keep(_SPACE.sub(b" ", data[at:end]))
        if found:
            self._keep(found[0])
            self._note(found[0])
        return end + 1

    def _note(self, mark: bytes) -> None:
        """Follow the structure, as far as it tells whose value the next string is."""
        match mark:
            case b'"':
                self._begin_text()
            case b"{" | b"[":
                self._depth += 1
                self._is_key_next = mark == b"{"
            case b"}" | b"]":
                self._depth -= 1
            case b",":
                self._is_key_next = True
            case b":":
                self._is_key_next = False

    def _begin_text(self) -> None:
        self._in_text = True
        self._begin, self._room = len(self._rest), TEXT_BYTES
        self._in_image = self._depth == 1 and not self._is_key_next and self._key_is_image
        if self._in_image:
            self.image.restart()

    def _inside(self, data: bytes, at: int) -> int:
        """Take a string up to its end, or to the end of the data. Return the position after it."""
        quote = data.find(b'"', at)
        end = quote if quote >= 0 else len(data)
        if data.find(b"\\", at, end) >= 0:
            found = _CONTENT.match(data, at)
            end = found.end() if found else at
        text = data[at:end]
        if len(text.translate(None, CONTROL)) < len(text):
            raise invalid_json(self._instead)
        self._take(text)
        if end == len(data):
            return end
        if data[end] == QUOTE:
            self._end_text()
            return end + 1
        if data[end] != BACKSLASH or len(data) - end >= ESCAPE_BYTES:
            raise invalid_json(self._instead)
        self._carried = data[end:]
        return len(data)

    def _take(self, text: bytes) -> None:
        """Take a part of a string, with whole escapes."""
        if self._in_image:
            self.image.feed(_unescaped(text) if b"\\" in text else text)
        elif len(text) <= self._room:
            self._keep(text)
            self._room -= len(text)
        elif self._room >= 0:
            found = _CONTENT.match(text, 0, self._room)
            self._keep(found[0] if found else b"")
            _cut_character(self._rest)
            self._room = -1

    def _end_text(self) -> None:
        self._in_text = False
        if self._depth == 1 and self._is_key_next:
            self._key_is_image = _is_image(bytes(self._rest[self._begin :]))
        self._keep(b'"')

    def _keep(self, data: bytes) -> None:
        if len(self._rest) + len(data) > REST_BYTES:
            most = REST_BYTES // 1024
            raise BodyTooLarge(
                f"The request has more than {most} KiB besides image_base64; leave out what is not needed."
            )
        self._rest += data


def _unescaped(text: bytes) -> bytes:
    """Replace the escapes of a part of a string; text that is no UTF-8, and so no base64, is returned as it is."""
    try:
        return str(json.loads(b'"' + text + b'"')).encode(errors="surrogatepass")
    except ValueError:
        return text


def _is_image(key: bytes) -> bool:
    """Whether the content of a string, perhaps with escapes, is the name of the image's field."""
    return len(key) <= len(IMAGE) * ESCAPE_BYTES and _unescaped(key) == IMAGE.encode()


def _cut_character(kept: bytearray) -> None:
    """Remove a character at the end, which may not be complete, if it takes several bytes in UTF-8."""
    for _ in range(3):
        if kept[-1] & 0xC0 != 0x80:
            break
        kept.pop()
    if kept[-1] >= 0xC0:
        kept.pop()
