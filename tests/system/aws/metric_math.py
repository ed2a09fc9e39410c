"""Evaluates the metric expressions and alarm thresholds of infra/aws as CloudWatch does; they are valid Python too."""

import operator
from collections.abc import Callable
from typing import Any

COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    "GreaterThanThreshold": operator.gt,
    "GreaterThanOrEqualToThreshold": operator.ge,
    "LessThanThreshold": operator.lt,
}
FUNCTIONS = {
    "IF": lambda condition, then, otherwise: then if condition else otherwise,
    "FILL": lambda value, filler: filler if value is None else value,
    "MAX": max,
}


def value(metrics: list[dict[str, Any]], given: dict[str, float | None]) -> float | None:
    """Return the value of the only expression for these metric values; None means no data, as input and as result."""
    [expression] = [metric["Expression"] for metric in metrics if metric["ReturnData"]]
    assert {metric["Id"] for metric in metrics if "MetricStat" in metric} == set(given)
    try:
        result: float = eval(expression, {"__builtins__": {}, **FUNCTIONS}, dict(given))
    except (TypeError, ZeroDivisionError):
        return None
    return result


def fires(alarm: dict[str, Any], given: dict[str, float | None]) -> bool:
    """Return whether the alarm fires if its metrics keep these values for all evaluation periods."""
    result = value(alarm["Metrics"], given)
    if result is None:
        return bool(alarm["TreatMissingData"] == "breaching")
    return COMPARISONS[alarm["ComparisonOperator"]](result, alarm["Threshold"])
