"""An answer for http_server that forwards to the real store and cuts chosen bodies off in the middle."""

import http.client
import socket
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler
from typing import Literal
from urllib.parse import urlsplit

from tests.chaos.proxy import RESET
from tests.support.servers import Answer

Cut = Literal["fin", "rst", "damaged", ""]
"""How a body ends: with FIN or RST after its first half, with one wrong byte, or as it should."""


def cut_bodies(store_url: str, cuts: Sequence[Cut]) -> Answer:
    """Forward GET requests to the store; the n-th body is cut as the n-th of `cuts` says, all later ones are whole."""
    left = list(cuts)

    def answer(handler: BaseHTTPRequestHandler) -> None:
        connection = http.client.HTTPConnection(urlsplit(store_url).netloc, timeout=10)
        connection.request("GET", handler.path, headers=dict(handler.headers))  # Host too: the signature covers it
        response = connection.getresponse()
        data = response.read()
        connection.close()
        cut = left.pop(0) if left else ""
        handler.send_response_only(response.status)
        for name, value in response.getheaders():
            handler.send_header(name, value)
        handler.end_headers()
        if cut == "damaged":
            data = bytes([data[0] ^ 1]) + data[1:]
        handler.wfile.write(data[: len(data) // 2] if cut in ("fin", "rst") else data)
        handler.close_connection = True
        if cut == "rst":
            handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            handler.connection.close()

    return answer
