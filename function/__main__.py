"""`python -m upres.function`: serve the function with uvicorn."""

import argparse
import logging
import sys
from contextlib import suppress
from ipaddress import ip_address

from upres.core import logs, tracing
from upres.core.errors import AccessUndecided, UpresError, not_installed
from upres.core.settings import Settings

log = logging.getLogger("upres.function")
UNDECIDED = (
    "UPRES_ACCESS is not set: only this machine is served. A proxy on this machine could let everybody in; set "
    "UPRES_ACCESS before you start one."
)


def main() -> int:
    """Serve until a signal stops it. Return 0; or 1, after one line on standard error, when it cannot start."""
    parser = argparse.ArgumentParser(
        prog="python -m upres.function",
        description="Serve the HTTP API and the page. Settings come from UPRES_* variables (see core/settings.py) and "
        "AWS's own credential variables. With an address that other machines can reach, UPRES_ACCESS must be set: "
        "keys (clients need an API key from `upres keys create`) or open (all clients are accepted).",
    )
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on, :: for all, with IPv4 (default: 127.0.0.1)"
    )
    parser.add_argument("--port", type=int, default=8000, help="port to listen on (default: 8000)")
    options = parser.parse_args()
    try:
        settings = Settings.from_environment()
        check(settings, options.host)
        serve(settings, options.host, options.port)
    except UpresError as error:
        print(f"function: {error} [{error.code}]", file=sys.stderr)
        return 1
    return 0


def serve(settings: Settings, host: str, port: int) -> None:
    """Serve until a signal stops it. Raises NotInstalled, or SettingsError when a port is in use."""
    try:
        from upres.function import descriptors, memory
        from upres.function.app import create_app
        from upres.function.metrics import serve_metrics
        from upres.function.server import Server
    except ModuleNotFoundError as error:
        raise not_installed(error, "The function", "function") from error
    logs.begin(settings)
    if not settings.access:
        log.warning(UNDECIDED)
    descriptors.raise_limit()
    memory.return_large_blocks()
    tracing.begin("function")
    app = create_app(settings)
    with suppress(KeyboardInterrupt), serve_metrics(app.state):  # uvicorn raises the signal again that has stopped it
        Server(app, host, port).run()


def check(settings: Settings, host: str) -> None:
    """Raise AccessUndecided when other machines can reach the address, but UPRES_ACCESS is not set."""
    local = host == "localhost" or ((host.replace(".", "").isdigit() or ":" in host) and ip_address(host).is_loopback)
    if not (local or settings.access):
        raise AccessUndecided(
            f"Other machines can reach {host}: set UPRES_ACCESS to keys (see `upres keys --help`), "
            "or to open for all clients."
        )


if __name__ == "__main__":
    sys.exit(main())
