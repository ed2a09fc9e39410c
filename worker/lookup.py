"""DNS lookups that end in time."""

import socket
import threading
from concurrent.futures import Future
from typing import Any


def lookup(host: str, port: int, seconds: float) -> list[Any]:
    """Return the addresses of a host as socket.getaddrinfo does, within `seconds`.

    It runs in a thread, because a lookup that hangs cannot be interrupted. Raises socket.gaierror; EAI_AGAIN also when
    no DNS server answers in time.
    """
    answer: Future[list[Any]] = Future()

    def resolve() -> None:
        try:
            answer.set_result(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except BaseException as error:
            answer.set_exception(error)

    threading.Thread(target=resolve, name="resolver", daemon=True).start()
    try:
        return answer.result(seconds)
    except TimeoutError:
        raise socket.gaierror(socket.EAI_AGAIN, "the DNS lookup took too long") from None
