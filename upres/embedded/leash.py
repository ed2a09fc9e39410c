"""`python -m upres.embedded.leash FD SECONDS CMD…`: run a command that ends when the parent process ends.

The file descriptor FD is the leash: the read end of a pipe whose write end the parent holds. When the parent closes the
pipe, or dies in any way, this process reads the end of the pipe and stops the command: SIGTERM, and SIGKILL after
SECONDS. The exit code is that of the command, or 128 + the number of the signal that ended it.
"""

import os
import signal
import subprocess
import sys
import threading


def main(leash: int, grace: float, command: list[str]) -> int:
    """Run the command until it ends, or until the pipe `leash` ends. Returns the exit code."""
    # A terminal sends Ctrl-C to the command as well, and the command decides whether to end. So this process ignores
    # it, with a handler, which the command does not inherit; it would inherit SIG_IGN.
    signal.signal(signal.SIGINT, lambda number, frame: None)
    child = subprocess.Popen(command)
    threading.Thread(target=_stop_at_end, args=(leash, child, grace), daemon=True).start()
    code = child.wait()
    return 128 - code if code < 0 else code


def _stop_at_end(leash: int, child: "subprocess.Popen[bytes]", grace: float) -> None:
    """Wait for the end of the pipe, then stop the command."""
    while os.read(leash, 4096):
        pass
    child.terminate()
    try:
        child.wait(grace)
    except subprocess.TimeoutExpired:
        child.kill()


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]))
