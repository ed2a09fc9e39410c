"""Request bodies that are compressed with gzip (RFC 1952), as RFC 9110, section 8.4.1.3, allows them."""

import zlib
from collections.abc import Iterator

from upres.core.errors import InvalidEncoding

PIECE = 1 << 18
"""Most bytes that are uncompressed at a time: a bomb of some kilobytes holds gigabytes."""
GZIP = 16 + zlib.MAX_WBITS
"""zlib's number of the format."""


class Gunzip:
    """Uncompresses a body while it comes. It may consist of several members, as gzip files may."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(GZIP)

    def pieces(self, data: bytes) -> Iterator[bytes]:
        """Yield what the next bytes of the body hold, in pieces of at most PIECE bytes. Raises InvalidEncoding."""
        more = True
        while data or more:  # a full piece may have left some bytes behind
            if data and self._member.eof:
                self._member = zlib.decompressobj(GZIP)
            try:
                piece = self._member.decompress(data, PIECE)
            except zlib.error as error:
                said = "The body is not compressed with gzip, although Content-Encoding says so."
                raise InvalidEncoding(said) from error
            yield piece
            data, more = self._member.unconsumed_tail or self._member.unused_data, len(piece) == PIECE

    def end(self) -> None:
        """Check that the body is complete. Raises InvalidEncoding."""
        if not self._member.eof:
            raise InvalidEncoding("The body ends in the middle of its gzip data; send it again.")
