"""What CloudWatch makes of the expressions and thresholds in infra/aws, whose syntax is also Python's."""

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
    """The one expression, with these values of its metrics; None is no data, and makes no data."""
    [expression] = [metric["Expression"] for metric in metrics if metric["ReturnData"]]
    assert {metric["Id"] for metric in metrics if "MetricStat" in metric} == set(given)
    try:
        result: float = eval(expression, {"__builtins__": {}, **FUNCTIONS}, dict(given))
    except (TypeError, ZeroDivisionError):
        return None
    return result


def fires(alarm: dict[str, Any], given: dict[str, float | None]) -> bool:
    """Whether these values, told often enough, bring the alarm about."""
    result = value(alarm["Metrics"], given)
    if result is None:
        return bool(alarm["TreatMissingData"] == "breaching")
    return COMPARISONS[alarm["ComparisonOperator"]](result, alarm["Threshold"])
