"""AWS Lambda, every minute: how much waits, as metrics of CloudWatch. infra/aws/scaling.yml calls workers by them.

They are a line of the log, in CloudWatch's Embedded Metric Format: the function has no way out to anybody else.
"""

import json
import time
from typing import Any

from upres.core import backlog, keys
from upres.core.queue import connect_quickly
from upres.core.settings import Settings

UNITS = {
    "JobsWaiting": "Count",
    "JobsRunning": "Count",
    "JobsEnded": "Count",
    "DeadLetters": "Count",
    "WorkersReady": "Count",
    "OldestSeconds": "Seconds",
}
"""The metrics. JobsEnded only grows, and tells of jobs that came and went between two looks."""


def handler(event: Any, context: Any) -> None:
    """Tell how the queue is. Raises redis-py's errors: no number is no zero, and has an alarm of its own."""
    with connect_quickly(Settings.from_environment()) as connection:
        now = backlog.read(connection)
        ended: Any = connection.hgetall(keys.ENDED)
    values = (now.waiting, now.running, sum(map(int, ended.values())), now.dead, now.workers, now.oldest_seconds)
    print(embedded(context.function_name, dict(zip(UNITS, values, strict=True))))


def embedded(function_name: str, values: dict[str, float]) -> str:
    """One line in the Embedded Metric Format; what differs between deployments is the function's name."""
    metrics = [{"Name": name, "Unit": UNITS[name]} for name in values]
    directive = {"Namespace": "upres", "Dimensions": [["FunctionName"]], "Metrics": metrics}
    about = {"Timestamp": int(time.time() * 1000), "CloudWatchMetrics": [directive]}
    return json.dumps({"_aws": about, "FunctionName": function_name, **values})
