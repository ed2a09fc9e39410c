"""Subclasses of threading.Thread: their attributes do not hide private ones of any supported Python."""

import ast
import threading
from pathlib import Path

from tests.support.paths import ROOT

SINCE_3_13 = {"_context", "_handle", "_os_thread_handle", "_set_os_name"}
"""Private attributes of threading.Thread in Python 3.13 and 3.14; a thread with another `_context` does not run."""
PRIVATE = SINCE_3_13 | set(vars(threading.Thread())) | set(dir(threading.Thread))
PARTS = ("client", "console", "core", "function", "infra", "models", "tests", "upres", "worker")


def attributes(path: Path) -> dict[str, set[str]]:
    """The attributes that the Thread subclasses in a file assign to `self`: class name → names."""
    return {
        one.name: {
            target.attr
            for node in ast.walk(one)
            for target in getattr(node, "targets", [getattr(node, "target", None)])
            if isinstance(target, ast.Attribute) and isinstance(target.value, ast.Name) and target.value.id == "self"
        }
        for one in ast.walk(ast.parse(path.read_text()))
        if isinstance(one, ast.ClassDef) and any(ast.unparse(base).endswith("Thread") for base in one.bases)
    }


def test_no_thread_hides_a_private_attribute_of_its_base() -> None:
    found = {
        f"{path.name}: {name}": names
        for part in PARTS
        for path in (ROOT / part).rglob("*.py")
        for name, names in attributes(path).items()
    }
    assert {"slots.py: Slot", "heartbeat.py: Heartbeat", "label_watcher.py: LabelWatcher"} <= set(found)
    for name, names in found.items():
        assert not names & PRIVATE - {"daemon", "name"}, name


def test_the_check_finds_a_hidden_attribute(tmp_path: Path) -> None:
    (tmp_path / "x.py").write_text(
        "class A(Thread):\n  def __init__(self):\n    self._context = 1\n    self._b: int = 2"
    )
    assert attributes(tmp_path / "x.py") == {"A": {"_context", "_b"}}
    assert "_context" in PRIVATE
