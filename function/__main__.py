"""`python -m upres.function`: the entry function under uvicorn."""

import argparse
import sys
from ipaddress import ip_address

from upres.core import logs, tracing
from upres.core.errors import AccessUndecided, NotInstalled, UpresError
from upres.core.settings import Settings

KEEP_ALIVE_SECONDS = 75
"""Longer than load balancers keep a quiet connection (60 s): else they send into one that is being closed."""
STREAM_SECONDS = 2
"""At the end, event streams, which may be open for ever, are given so long."""


def main() -> int:
    """Serve until told to stop; 1 and one clear line when it may not or cannot start."""
    parser = argparse.ArgumentParser(
        prog="python -m upres.function",
        description="Serve the HTTP API and the page. Settings come from UPRES_* variables (see core/settings.py) and "
        "AWS's own credential variables. Reached from outside, it wants to be told who may use it: "
        "UPRES_ACCESS=keys (made with `upres keys create`), or UPRES_ACCESS=open for everybody.",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
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
    """Serve until told to stop. Raises NotInstalled, or SettingsError when the port for metrics is taken."""
    try:
        import uvicorn

        from upres.function.app import create_app
        from upres.function.metrics import measuring
        from upres.function.patience import PatientProtocol
    except ModuleNotFoundError as error:
        raise NotInstalled(error, "The function", "function") from error
    logs.begin(settings)
    tracing.begin("function")
    app = create_app(settings)
    with measuring(app.state):
        uvicorn.run(
            app,
            host=host,
            port=port,
            http=PatientProtocol,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            log_config=None,
            server_header=False,
            access_log=False,  # it would write down tokens; proxies and gateways keep their own
            timeout_graceful_shutdown=STREAM_SECONDS,
        )


def check(settings: Settings, host: str) -> None:
    """Raise AccessUndecided for an address that others reach when nobody said who may."""
    local = host == "localhost" or ((host.replace(".", "").isdigit() or ":" in host) and ip_address(host).is_loopback)
    if not (local or settings.access):
        raise AccessUndecided(
            f"{host} can be reached from outside: set UPRES_ACCESS to keys (see `upres keys --help`), "
            "or to open for everybody."
        )


if __name__ == "__main__":
    sys.exit(main())
