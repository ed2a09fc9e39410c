"""The HTTP server: uvicorn, which ends open requests properly when the process is told to stop."""

import os
import socket

import uvicorn
from starlette.applications import Starlette

from upres.core.errors import SettingsError
from upres.core.listening import any_address
from upres.function import limits
from upres.function.connection import PatientProtocol

PROXIES = "127.0.0.1,::1,::ffff:127.0.0.1"
"""Addresses of proxies whose X-Forwarded-Proto and X-Forwarded-For count, unless uvicorn's FORWARDED_ALLOW_IPS names
others: those of this machine. On a socket for IPv4 and IPv6, IPv4 addresses look like the last one (RFC 4291)."""


class Server(uvicorn.Server):
    """Uvicorn's server for the app, which listens on one host and port; host `::` means all addresses, with IPv4."""

    def __init__(self, app: Starlette, host: str, port: int) -> None:
        self._app = app
        self._everywhere = host == "::"
        config = uvicorn.Config(
            app,
            host=host,
            port=port,
            http=PatientProtocol,
            ws="none",
            timeout_keep_alive=limits.KEEP_ALIVE_SECONDS,
            log_config=None,
            forwarded_allow_ips=os.environ.get("FORWARDED_ALLOW_IPS", PROXIES),
            server_header=False,
            access_log=False,  # it would contain tokens; proxies and gateways have their own
            timeout_graceful_shutdown=limits.STOP_SECONDS,
        )
        super().__init__(config)

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until a signal stops it. Raises SettingsError when all addresses are wanted and the port is in use."""
        if not self._everywhere:
            super().run(sockets)
            return
        with _listen_everywhere(self.config.port) as listening:  # asyncio's own socket for :: would refuse IPv4
            super().run([listening])

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End event streams and waits, which could last for hours, then all else (see uvicorn)."""
        self._app.state.hub.stop()
        await super().shutdown(sockets)


def _listen_everywhere(port: int) -> socket.socket:
    address = any_address()
    try:
        if address == "::":
            return socket.create_server((address, port), family=socket.AF_INET6, dualstack_ipv6=True)
        return socket.create_server((address, port))
    except OSError as error:
        raise SettingsError(f"--port: {port} cannot be listened on ({error.strerror})") from None
