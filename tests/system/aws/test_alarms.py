"""Who is told what, and what there is to read about it."""

import re
from typing import Any

import pytest

from tests.support.paths import ROOT
from tests.system.aws.conftest import Aws, Template
from tests.system.aws.intrinsics import ACCOUNT, REGION, resolved
from tests.system.aws.metric_math import fires
from upres.function.backlog import UNITS

TOPIC = f"arn:aws:sns:{REGION}:{ACCOUNT}:upres-alarms"
SCALE = {"FirstAlarm", "EaseAlarm", "LastAlarm"}
"""These call workers, and nobody else."""


@pytest.fixture(scope="module")
def alarms(template: Template) -> dict[str, Any]:
    found = {name: one for name, one in template["Resources"].items() if one["Type"] == "AWS::CloudWatch::Alarm"}
    return {name: resolved(one["Properties"], {}) for name, one in found.items()}


def test_each_alarm_says_where_to_read_on(alarms: dict[str, Any]) -> None:
    text = (ROOT / "docs/operations.md").read_text()
    entries = {title.lower().replace(" ", "-") for title in re.findall(r"^#+ (.+)$", text, re.MULTILINE)}
    for name in alarms.keys() - SCALE:
        assert alarms[name]["AlarmActions"] == alarms[name]["OKActions"] == [TOPIC]
        [entry] = re.findall(r" docs/operations\.md#([a-z-]+)$", alarms[name]["AlarmDescription"])
        assert entry in entries, name


def metrics(alarm: dict[str, Any]) -> list[dict[str, Any]]:
    """All that it looks at."""
    return [one["MetricStat"]["Metric"] for one in alarm.get("Metrics", []) if "MetricStat" in one] or [alarm]


def test_what_is_looked_at_is_told(alarms: dict[str, Any]) -> None:
    """The backlog function's metrics, by that function's name."""
    ours = [one for alarm in alarms.values() for one in metrics(alarm) if one["Namespace"] == "upres"]
    assert {one["MetricName"] for one in ours} == set(UNITS)
    for one in ours:
        assert one["Dimensions"] == [{"Name": "FunctionName", "Value": "BacklogLambdaFunction"}]


@pytest.mark.parametrize(("waiting", "ready", "tells"), [(0, 0, False), (3, 0, True), (3, 1, False)])
def test_somebody_hears_that_nobody_works(alarms: dict[str, Any], waiting: float, ready: float, tells: bool) -> None:
    assert fires(alarms["NoWorkerAlarm"], {"waiting": waiting, "ready": ready}) == tells


@pytest.mark.parametrize(("gateways", "balancer", "tells"), [(None, None, False), (None, 6, True), (3, 3, True)])
def test_somebody_hears_of_server_errors(
    alarms: dict[str, Any], gateways: float | None, balancer: float | None, tells: bool
) -> None:
    assert fires(alarms["GatewayAnswersAlarm"], {"gateways": gateways, "balancer": balancer}) == tells


def test_the_worse_node_counts(alarms: dict[str, Any]) -> None:
    """After a failover the second one is the primary."""
    for name in ("QueueMemoryAlarm", "QueueEvictionsAlarm", "QueueProcessorAlarm"):
        assert fires(alarms[name], {"one": 0, "two": 99})
        assert not fires(alarms[name], {"one": 0, "two": 0})


def test_silence_is_an_alarm_too(alarms: dict[str, Any]) -> None:
    silent = alarms["BacklogUnknownAlarm"]
    assert (silent["Statistic"], silent["TreatMissingData"]) == ("SampleCount", "breaching")


def test_aws_takes_the_alarms(aws: Aws, alarms: dict[str, Any]) -> None:
    """Their API, that is, in moto: its CloudFormation does not know them."""
    cloudwatch = aws.client("cloudwatch")
    for name, alarm in alarms.items():
        cloudwatch.put_metric_alarm(AlarmName=name, **alarm)
    made = cloudwatch.describe_alarms()["MetricAlarms"]
    assert {one["AlarmName"] for one in made} == set(alarms)
