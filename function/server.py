"""The HTTP server: uvicorn, which ends open requests properly when the process is told to stop."""

import socket

import uvicorn
from starlette.applications import Starlette

from upres.function import limits
from upres.function.connection import PatientProtocol


class Server(uvicorn.Server):
    """Uvicorn's server for the app, which listens on one host and port."""

    def __init__(self, app: Starlette, host: str, port: int) -> None:
        self._app = app
        config = uvicorn.Config(
            app,
            host=host,
            port=port,
            http=PatientProtocol,
            ws="none",
            timeout_keep_alive=limits.KEEP_ALIVE_SECONDS,
            log_config=None,
            server_header=False,
            access_log=False,  # it would contain tokens; proxies and gateways have their own
            timeout_graceful_shutdown=limits.STOP_SECONDS,
        )
        super().__init__(config)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End event streams and waits, which could last for hours, then all else (see uvicorn)."""
        self._app.state.hub.stop()
        await super().shutdown(sockets)
