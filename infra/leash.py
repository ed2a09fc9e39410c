"""`python -m infra.leash SECONDS CMD…`: run a command that cannot outlive whoever started it.

Standard input is the leash: a pipe whose other end the parent holds. When the parent closes it or
dies, however it dies, the pipe ends and the command is stopped: SIGTERM to its process group, and
SIGKILL after SECONDS. Exits with the command's own code, or 128 + the signal that ended it.
"""

import os
import signal
import subprocess
import sys
import threading


def main(grace: float, command: list[str]) -> int:
    """Run the command until it ends or the leash does."""
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    threading.Thread(target=_hold, args=(child, grace), daemon=True).start()
    code = child.wait()
    return 128 - code if code < 0 else code


def _hold(child: "subprocess.Popen[bytes]", grace: float) -> None:
    while os.read(0, 4096):
        pass
    _signal(child, signal.SIGTERM)
    try:
        child.wait(grace)
    except subprocess.TimeoutExpired:
        _signal(child, signal.SIGKILL)


def _signal(child: "subprocess.Popen[bytes]", number: signal.Signals) -> None:
    if child.poll() is None:
        os.killpg(child.pid, number)


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]), sys.argv[2:]))
