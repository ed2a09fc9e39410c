"""`python -m upres.embedded.leash FD SECONDS CMD…`: run a command that does not outlive whoever started it.

The file descriptor FD is the leash: a pipe whose other end the parent holds. When the parent closes it
or dies, however it dies, the pipe ends and the command is stopped: SIGTERM, and SIGKILL after SECONDS.
Exits with the command's own code, or 128 + the signal that ended it.
"""

import os
import signal
import subprocess
import sys
import threading


def main(leash: int, grace: float, command: list[str]) -> int:
    """Run the command until it ends or the leash does."""
    # Ctrl-C at a terminal goes to the command as well; what it makes of it decides. A handler is reset
    # for the command, SIG_IGN would be inherited.
    signal.signal(signal.SIGINT, lambda number, frame: None)
    child = subprocess.Popen(command)
    threading.Thread(target=_hold, args=(leash, child, grace), daemon=True).start()
    code = child.wait()
    return 128 - code if code < 0 else code


def _hold(leash: int, child: "subprocess.Popen[bytes]", grace: float) -> None:
    while os.read(leash, 4096):
        pass
    child.terminate()
    try:
        child.wait(grace)
    except subprocess.TimeoutExpired:
        child.kill()


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]))
