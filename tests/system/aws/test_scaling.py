"""Scaling of the workers on AWS: from zero to as many as the backlog needs, and back to zero."""

import math
from typing import Any

import pytest

from tests.system.aws.conftest import Aws, Template
from tests.system.aws.intrinsics import resolved
from tests.system.aws.metric_math import fires, value

Given = dict[str, float | None]


def properties(template: Template, name: str) -> Any:
    return resolved(template["Resources"][name]["Properties"], {})


@pytest.mark.parametrize(
    ("waiting", "running", "wanted", "calls"),
    [
        (0, 0, 0, False),
        (1, 0, 0, True),
        (0, 1, 0, True),  # its worker died, and no other worker exists that could recover the job
        (1, 0, None, True),  # the requested number is unknown: start one worker too many rather than none
        (9, 0, 1, False),  # one worker is requested already
        (9, 6, 2, False),
    ],
)
def test_the_first_worker_starts_when_jobs_exist_and_none_is_requested(
    template: Template, waiting: float, running: float, wanted: float | None, calls: bool
) -> None:
    given: Given = {"waiting": waiting, "running": running, "wanted": wanted}
    assert fires(properties(template, "FirstAlarm"), given) == calls


def test_the_alarm_for_the_first_worker_adds_one_worker(template: Template) -> None:
    """A fixed number instead of '+1' could stop workers when the metrics are delayed."""
    steps = properties(template, "First")["StepScalingPolicyConfiguration"]
    assert steps["AdjustmentType"] == "ChangeInCapacity"
    assert steps["StepAdjustments"] == [{"MetricIntervalLowerBound": 0, "ScalingAdjustment": 1}]
    assert properties(template, "FirstAlarm")["AlarmActions"] == ["First"]


@pytest.mark.parametrize(
    ("waiting", "running", "before", "after", "goes"),
    [
        (0, 0, 7, 7, True),
        (1, 0, 7, 7, False),
        (0, 1, 7, 7, False),
        (0, 0, 7, 8, False),  # a job started and ended between two measurements
        (None, None, None, None, False),  # no data
    ],
)
def test_the_last_worker_stops_only_when_there_were_no_jobs(
    template: Template, waiting: float, running: float, before: float, after: float, goes: bool
) -> None:
    given: Given = {"waiting": waiting, "running": running, "before": before, "after": after}
    assert fires(properties(template, "LastAlarm"), given) == goes


def test_the_last_worker_stops_after_15_minutes_without_jobs(template: Template) -> None:
    alarm = properties(template, "LastAlarm")
    periods = {metric["MetricStat"]["Period"] for metric in alarm["Metrics"] if "MetricStat" in metric}
    assert (periods, alarm["EvaluationPeriods"], alarm["AlarmActions"]) == ({900}, 1, ["Last"])
    steps = properties(template, "Last")["StepScalingPolicyConfiguration"]
    assert steps["AdjustmentType"] == "ExactCapacity"
    assert steps["StepAdjustments"] == [{"MetricIntervalUpperBound": 0, "ScalingAdjustment": 0}]


@pytest.mark.parametrize(("waiting", "running", "needed"), [(24, 6, 1), (25, 6, 2), (300, 24, 11)])
@pytest.mark.parametrize("wanted", [1, 2, 4, 20])
def test_the_number_of_workers_depends_only_on_the_backlog(
    template: Template, waiting: float, running: float, needed: int, wanted: int
) -> None:
    """It does not depend on how many workers are requested already, ready or not."""
    tracking = properties(template, "KeepUp")["TargetTrackingScalingPolicyConfiguration"]
    given: Given = {"waiting": waiting, "running": running, "wanted": wanted}
    per_worker = value(tracking["CustomizedMetricSpecification"]["Metrics"], given)
    assert per_worker is not None
    assert math.ceil(round(wanted * per_worker / tracking["TargetValue"], 9)) == needed


def test_target_tracking_never_scales_in(template: Template) -> None:
    assert properties(template, "KeepUp")["TargetTrackingScalingPolicyConfiguration"]["DisableScaleIn"] is True


@pytest.mark.parametrize(
    ("waiting", "running", "wanted", "eases"),
    [
        (0, 0, 2, True),
        (0, 10, 2, True),
        (0, 12, 2, False),  # all slots are busy
        (1, 0, 2, False),
        (0, 0, 1, False),  # another alarm, LastAlarm, stops the last worker
        (0, 0, 0, False),
        (0, 100, 40, True),
        (None, None, None, False),
    ],
)
def test_workers_scale_in_when_fewer_workers_can_run_all_jobs(
    template: Template, waiting: float, running: float, wanted: float, eases: bool
) -> None:
    given: Given = {"waiting": waiting, "running": running, "wanted": wanted}
    assert fires(properties(template, "EaseAlarm"), given) == eases


def test_scale_in_stops_ten_percent_of_the_workers_at_a_time(template: Template) -> None:
    alarm, steps = properties(template, "EaseAlarm"), properties(template, "Ease")["StepScalingPolicyConfiguration"]
    assert (alarm["EvaluationPeriods"], alarm["AlarmActions"]) == (5, ["Ease"])
    assert steps["AdjustmentType"] == "PercentChangeInCapacity"
    assert steps["StepAdjustments"] == [{"MetricIntervalLowerBound": 0, "ScalingAdjustment": -10}]
    assert steps["MinAdjustmentMagnitude"] == 1


def test_target_tracking_has_no_data_when_there_are_no_workers(template: Template) -> None:
    metrics = properties(template, "KeepUp")["TargetTrackingScalingPolicyConfiguration"][
        "CustomizedMetricSpecification"
    ]
    assert value(metrics["Metrics"], {"waiting": 9, "running": 0, "wanted": 0}) is None


def test_the_auto_scaling_api_accepts_the_policies(aws: Aws, stack: dict[str, str], template: Template) -> None:
    """The API is moto's; the test calls it directly because moto's CloudFormation does not support policies."""
    known = {**stack, "WorkerService.Name": stack["WorkerService"].rpartition("/")[2]}
    scaling = aws.client("application-autoscaling")
    target = resolved(template["Resources"]["WorkerScaling"]["Properties"], known)
    scaling.register_scalable_target(**target)
    place = {name: target[name] for name in ("ServiceNamespace", "ResourceId", "ScalableDimension")}
    for name in ("KeepUp", "Ease", "First", "Last"):
        policy = resolved(template["Resources"][name]["Properties"], known)
        assert policy.pop("ScalingTargetId") == "WorkerScaling"
        scaling.put_scaling_policy(**place, **policy)
    [made] = scaling.describe_scalable_targets(ServiceNamespace="ecs")["ScalableTargets"]
    assert (made["MinCapacity"], made["MaxCapacity"]) == (0, 4)
    policies = scaling.describe_scaling_policies(ServiceNamespace="ecs")["ScalingPolicies"]
    assert {one["PolicyType"] for one in policies} == {"TargetTrackingScaling", "StepScaling"}
    assert len(policies) == 4
