"""Drives Firefox by Marionette, the protocol that every Firefox speaks; Playwright needs a Firefox of its own."""

import json
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.waiting import wait_until
from upres.embedded.child import Child, accepts, free_port

NAMES = ("firefox-esr", "firefox")
PREFERENCES = """
user_pref("marionette.port", {port});
user_pref("app.update.enabled", false);
user_pref("datareporting.policy.dataSubmissionEnabled", false);
user_pref("network.captive-portal-service.enabled", false);
user_pref("network.connectivity-service.enabled", false);
"""
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
"""The key of a reference to an element (W3C WebDriver)."""


def installed() -> str | None:
    """The path of Firefox; None where there is none."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Firefox:
    """One window. Each call waits for its answer for at most 60 seconds."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        self._file = self._socket.makefile("rb")
        self._receive()  # what Firefox says first: its protocol's version
        self.call("WebDriver:NewSession", {})

    def call(self, command: str, parameters: dict[str, Any]) -> Any:
        """Run a command of WebDriver and return its value. Raises AssertionError when Firefox refuses it."""
        data = json.dumps([0, 1, command, parameters]).encode()
        self._socket.sendall(b"%d:%s" % (len(data), data))
        _, _, error, value = self._receive()
        assert error is None, error
        return value.get("value", value) if isinstance(value, dict) else value

    def run(self, script: str, *arguments: Any) -> Any:
        """Run JavaScript in the page, and return what it returns."""
        return self.call("WebDriver:ExecuteScript", {"script": script, "args": arguments})

    def choose(self, selector: str, file: Path) -> None:
        """Choose a file in an input of the page."""
        found = self.call("WebDriver:FindElement", {"using": "css selector", "value": selector})
        self.call("WebDriver:ElementSendKeys", {"id": found[ELEMENT], "text": str(file)})

    def wait(self, script: str, seconds: float = 60) -> None:
        """Wait until a script returns something true."""
        wait_until(lambda: self.run(script), seconds)

    def _receive(self) -> Any:
        length = b""
        while (byte := self._file.read(1)) != b":":
            assert byte, "Firefox has closed the connection"
            length += byte
        return json.loads(self._file.read(int(length)))

    def close(self) -> None:
        """Close the connection; the process ends with its Child."""
        self._file.close()
        self._socket.close()


@contextmanager
def firefox(program: str, folder: Path) -> Iterator[Firefox]:
    """Run a headless Firefox with a new profile in this folder."""
    port, profile = free_port(), folder / "profile"
    profile.mkdir()
    (profile / "user.js").write_text(PREFERENCES.format(port=port))
    command = [program, "--headless", "--no-remote", "--marionette", "--profile", str(profile)]
    with Child("firefox", command, {"HOME": str(folder), "MOZ_CRASHREPORTER_DISABLE": "1"}, folder) as child:
        child.wait_ready(lambda: accepts(port))
        window = Firefox(port)
        yield window
        window.close()
