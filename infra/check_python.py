"""`PYTHON infra/check_python.py`: checks that a Python can set up upres. It has no new syntax, to run on old ones."""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 (this is the check itself)
    sys.exit("upres needs Python 3.11 or newer, and this one is older. Name a newer one: make PYTHON=python3.13")
try:
    __import__("ensurepip")
    __import__("venv")
except ImportError:
    version = ".".join(map(str, sys.version_info[:2]))
    sys.exit("This Python has no module venv. On Debian and Ubuntu: sudo apt-get install python" + version + "-venv")
