"""Downloads: what begins as a result of any format is an image, and all else is not."""

import httpx
import numpy as np
import pytest

from tests.support.result_files import result_file
from upres.client.calls import Call
from upres.client.errors import StoreUnreachable
from upres.client.responses import ImageCheck
from upres.core.formats import CONTENT_TYPES
from upres.core.schema import OutputFormat
from upres.worker.imaging.encode import Encoders
from upres.worker.imaging.metadata import Metadata
from upres.worker.imaging.picture import Picture, Pictures

CALL = Call("GET", "http://store/a", to_store=True)


@pytest.mark.parametrize("format", CONTENT_TYPES)
@pytest.mark.parametrize("kept", [Metadata(), Metadata(xmp=b"<a/>")])
def test_results_of_every_format_are_images(format: OutputFormat, kept: Metadata) -> None:
    made = Picture(np.full((20, 30, 3), 99, np.uint8), False, 3, None, "png", metadata=kept)
    file = Encoders(jobs=1).file(Pictures((made,)), [result_file(made, 1, format)], [made.pixels])
    assert ImageCheck(CALL, httpx.Response(200)).feed(file) == file


@pytest.mark.parametrize("data", [b"<html>", b"\0\0\0\x18ftypmp42", b"II", b"\xff", b"ftypavif", b"{}"])
def test_other_files_are_not(data: bytes) -> None:
    with pytest.raises(StoreUnreachable, match="no image"):
        ImageCheck(CALL, httpx.Response(200)).feed(data)
