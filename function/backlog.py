"""AWS Lambda, called every minute: write the backlog as CloudWatch metrics; infra/aws/scaling.yml scales workers by it.

The metrics are one line of the log in CloudWatch's Embedded Metric Format, because the function's network has no route
to CloudWatch's API.
"""

import json
import time
from typing import Any

from upres.core import backlog, keys
from upres.core.queue import connect_with_timeout
from upres.core.settings import Settings

UNITS = {
    "JobsWaiting": "Count",
    "JobsRunning": "Count",
    "JobsEnded": "Count",
    "DeadLetters": "Count",
    "WorkersReady": "Count",
    "OldestSeconds": "Seconds",
}
"""Metric → unit. JobsEnded only grows; it also counts jobs that began and ended between two calls."""


def handler(event: Any, context: Any) -> None:
    """Write the metrics. Raises redis-py's errors and then writes nothing; an alarm reports missing metrics."""
    with connect_with_timeout(Settings.from_environment()) as connection:
        now = backlog.read(connection)
        ended: Any = connection.hgetall(keys.JOB_COUNTS)
    values = (now.waiting, now.running, sum(map(int, ended.values())), now.dead, now.workers, now.oldest_seconds)
    print(embedded(context.function_name, dict(zip(UNITS, values, strict=True))))


def embedded(function_name: str, values: dict[str, float]) -> str:
    """Make one line in the Embedded Metric Format; its dimension is the function's name, which names the deployment."""
    metrics = [{"Name": name, "Unit": UNITS[name]} for name in values]
    directive = {"Namespace": "upres", "Dimensions": [["FunctionName"]], "Metrics": metrics}
    about = {"Timestamp": int(time.time() * 1000), "CloudWatchMetrics": [directive]}
    return json.dumps({"_aws": about, "FunctionName": function_name, **values})
