"""The CloudWatch alarms: when each one fires, whom it notifies, and its entry in docs/operations.md."""

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
"""Alarms that only start scaling of the workers; they notify nobody."""


@pytest.fixture(scope="module")
def alarms(template: Template) -> dict[str, Any]:
    found = {name: one for name, one in template["Resources"].items() if one["Type"] == "AWS::CloudWatch::Alarm"}
    return {name: resolved(one["Properties"], {}) for name, one in found.items()}


def test_each_alarm_notifies_the_topic_and_links_to_its_runbook_entry(alarms: dict[str, Any]) -> None:
    text = (ROOT / "docs/operations.md").read_text()
    entries = {title.lower().replace(" ", "-") for title in re.findall(r"^#+ (.+)$", text, re.MULTILINE)}
    for name in alarms.keys() - SCALE:
        assert alarms[name]["AlarmActions"] == alarms[name]["OKActions"] == [TOPIC]
        [entry] = re.findall(r" docs/operations\.md#([a-z-]+)$", alarms[name]["AlarmDescription"])
        assert entry in entries, name


def metrics(alarm: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the metrics that the alarm watches."""
    return [one["MetricStat"]["Metric"] for one in alarm.get("Metrics", []) if "MetricStat" in one] or [alarm]


def test_alarms_watch_exactly_the_metrics_that_the_backlog_function_logs(alarms: dict[str, Any]) -> None:
    """The alarms select them by the dimension FunctionName."""
    ours = [one for alarm in alarms.values() for one in metrics(alarm) if one["Namespace"] == "upres"]
    assert {one["MetricName"] for one in ours} == set(UNITS)
    for one in ours:
        assert one["Dimensions"] == [{"Name": "FunctionName", "Value": "BacklogLambdaFunction"}]


@pytest.mark.parametrize(("waiting", "ready", "tells"), [(0, 0, False), (3, 0, True), (3, 1, False)])
def test_an_alarm_fires_when_jobs_wait_and_no_worker_is_ready(
    alarms: dict[str, Any], waiting: float, ready: float, tells: bool
) -> None:
    assert fires(alarms["NoWorkerAlarm"], {"waiting": waiting, "ready": ready}) == tells


@pytest.mark.parametrize(("gateways", "balancer", "tells"), [(None, None, False), (None, 6, True), (3, 3, True)])
def test_an_alarm_fires_on_server_errors_of_gateways_and_load_balancer(
    alarms: dict[str, Any], gateways: float | None, balancer: float | None, tells: bool
) -> None:
    assert fires(alarms["GatewayAnswersAlarm"], {"gateways": gateways, "balancer": balancer}) == tells


def test_an_alarm_fires_when_only_one_redis_node_exceeds_the_threshold(alarms: dict[str, Any]) -> None:
    """After a failover the second node is the primary, so the alarm has to watch both nodes."""
    for name in ("QueueMemoryAlarm", "QueueEvictionsAlarm", "QueueProcessorAlarm"):
        assert fires(alarms[name], {"one": 0, "two": 99})
        assert not fires(alarms[name], {"one": 0, "two": 0})


def test_an_alarm_fires_when_the_backlog_function_sends_no_metrics(alarms: dict[str, Any]) -> None:
    silent = alarms["BacklogUnknownAlarm"]
    assert (silent["Statistic"], silent["TreatMissingData"]) == ("SampleCount", "breaching")


def test_the_cloudwatch_api_accepts_every_alarm(aws: Aws, alarms: dict[str, Any]) -> None:
    """The API is moto's; the test calls it directly because moto's CloudFormation does not support alarms."""
    cloudwatch = aws.client("cloudwatch")
    for name, alarm in alarms.items():
        cloudwatch.put_metric_alarm(AlarmName=name, **alarm)
    made = cloudwatch.describe_alarms(AlarmNames=list(alarms))["MetricAlarms"]
    assert {one["AlarmName"] for one in made} == set(alarms)
