"""Logs: text on a terminal, else one JSON object per line with at, level, logger, message and fields such as job_id."""

import json
import logging
import sys
import time
from collections.abc import MutableMapping
from contextvars import ContextVar
from typing import Any

from upres.core.foreign_text import printable
from upres.core.settings import Settings
from upres.core.tracing import current

REQUEST_ID: ContextVar[str] = ContextVar("request_id", default="")
"""Id of the request that this task or thread answers, if the client gave it one: JSON lines have it as request_id."""
TEXT = "%(asctime)s %(levelname)-7s %(message)s"


def begin(settings: Settings) -> None:
    """Write this process's log to standard error: of upres from level INFO, of libraries from level WARNING."""
    as_text = sys.stderr.isatty() if settings.logs == "auto" else settings.logs == "text"
    handler = logging.StreamHandler()
    handler.addFilter(_add_request_id)
    handler.setFormatter(TextFormatter(TEXT) if as_text else _json())
    logging.basicConfig(handlers=[handler], force=True)
    logging.getLogger("upres").setLevel(logging.INFO)


class TextFormatter(logging.Formatter):
    """One line for each record, then those of its exception, indented: no text in them can look like another record."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # the name is logging's
        """Return the record's line, without control characters (see logging.Formatter)."""
        return printable(super().formatMessage(record), None)

    def formatException(self, ei: Any) -> str:  # noqa: N802  # the name is logging's
        """Return the exception's lines, without other control characters (see logging.Formatter)."""
        return "    " + printable(super().formatException(ei), None, lines=True).replace("\n", "\n    ")


def _add_request_id(record: logging.LogRecord) -> bool:
    if request_id := REQUEST_ID.get():
        record.request_id = request_id
    return True


def _json() -> logging.Formatter:
    from pythonjsonlogger.json import JsonFormatter

    class Escaped(JsonFormatter):
        """Escapes all non-printable characters, not only those that JSON requires: a terminal interprets others too."""

        def format(self, record: logging.LogRecord) -> str:
            line = super().format(record)
            return line if line.isprintable() else "".join(map(_escaped, line))

    formatter = Escaped(
        "%(asctime)s %(levelname)s %(name)s %(message)s",
        rename_fields={"asctime": "at", "levelname": "level", "name": "logger"},
        json_ensure_ascii=False,
    )
    formatter.converter = time.gmtime
    formatter.default_time_format, formatter.default_msec_format = "%Y-%m-%dT%H:%M:%S", "%s.%03dZ"
    return formatter


def _escaped(character: str) -> str:
    return character if character.isprintable() else json.dumps(character)[1:-1]


class JobLog(logging.LoggerAdapter[logging.Logger]):
    """A logger for one job: each line begins with the job id; job, trace and span id are fields of JSON lines too."""

    def __init__(self, log: logging.Logger, job_id: str) -> None:
        super().__init__(log, {"job_id": job_id})
        self._job_id = job_id

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        """Add the job's id and the trace's ids (see logging.LoggerAdapter)."""
        fields = {"job_id": self._job_id, **current(), **(kwargs.get("extra") or {})}
        return f"job {self._job_id}: {msg}", {**kwargs, "extra": fields}
