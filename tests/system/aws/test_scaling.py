"""How many workers are called: from none and back to none, as many as the backlog needs, and none of them twice."""

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
        (0, 1, 0, True),  # its worker died, and nobody is there to find out
        (1, 0, None, True),  # nobody says how many are wanted: rather one too many
        (9, 0, 1, False),  # is called already
        (9, 6, 2, False),
    ],
)
def test_the_first_is_called_when_something_waits(
    template: Template, waiting: float, running: float, wanted: float | None, calls: bool
) -> None:
    given: Given = {"waiting": waiting, "running": running, "wanted": wanted}
    assert fires(properties(template, "FirstAlarm"), given) == calls


def test_calling_the_first_is_one_more(template: Template) -> None:
    """So that with numbers that are late nobody is sent home."""
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
        (0, 0, 7, 8, False),  # a job came and went between two looks
        (None, None, None, None, False),  # nobody looked
    ],
)
def test_the_last_goes_when_nothing_happened(
    template: Template, waiting: float, running: float, before: float, after: float, goes: bool
) -> None:
    given: Given = {"waiting": waiting, "running": running, "before": before, "after": after}
    assert fires(properties(template, "LastAlarm"), given) == goes


def test_the_last_goes_after_a_quarter_of_an_hour(template: Template) -> None:
    alarm = properties(template, "LastAlarm")
    periods = {metric["MetricStat"]["Period"] for metric in alarm["Metrics"] if "MetricStat" in metric}
    assert (periods, alarm["EvaluationPeriods"], alarm["AlarmActions"]) == ({900}, 1, ["Last"])
    steps = properties(template, "Last")["StepScalingPolicyConfiguration"]
    assert steps["AdjustmentType"] == "ExactCapacity"
    assert steps["StepAdjustments"] == [{"MetricIntervalUpperBound": 0, "ScalingAdjustment": 0}]


@pytest.mark.parametrize(("waiting", "running", "needed"), [(24, 6, 1), (25, 6, 2), (300, 24, 11)])
@pytest.mark.parametrize("wanted", [1, 2, 4, 20])
def test_the_backlog_alone_says_how_many(
    template: Template, waiting: float, running: float, needed: int, wanted: int
) -> None:
    """However many are wanted already, ready or not."""
    tracking = properties(template, "KeepUp")["TargetTrackingScalingPolicyConfiguration"]
    given: Given = {"waiting": waiting, "running": running, "wanted": wanted}
    per_worker = value(tracking["CustomizedMetricSpecification"]["Metrics"], given)
    assert per_worker is not None
    assert math.ceil(round(wanted * per_worker / tracking["TargetValue"], 9)) == needed


def test_target_tracking_sends_nobody_home(template: Template) -> None:
    assert properties(template, "KeepUp")["TargetTrackingScalingPolicyConfiguration"]["DisableScaleIn"] is True


@pytest.mark.parametrize(
    ("waiting", "running", "wanted", "eases"),
    [
        (0, 0, 2, True),
        (0, 7, 2, True),
        (0, 8, 2, False),  # all have their hands full
        (1, 0, 2, False),
        (0, 0, 1, False),  # the last one is another alarm's
        (0, 0, 0, False),
        (0, 100, 40, True),
        (None, None, None, False),
    ],
)
def test_some_go_when_fewer_would_do(
    template: Template, waiting: float, running: float, wanted: float, eases: bool
) -> None:
    given: Given = {"waiting": waiting, "running": running, "wanted": wanted}
    assert fires(properties(template, "EaseAlarm"), given) == eases


def test_a_tenth_goes_at_a_time(template: Template) -> None:
    alarm, steps = properties(template, "EaseAlarm"), properties(template, "Ease")["StepScalingPolicyConfiguration"]
    assert (alarm["EvaluationPeriods"], alarm["AlarmActions"]) == (5, ["Ease"])
    assert steps["AdjustmentType"] == "PercentChangeInCapacity"
    assert steps["StepAdjustments"] == [{"MetricIntervalLowerBound": 0, "ScalingAdjustment": -10}]
    assert steps["MinAdjustmentMagnitude"] == 1


def test_without_workers_nothing_is_tracked(template: Template) -> None:
    metrics = properties(template, "KeepUp")["TargetTrackingScalingPolicyConfiguration"][
        "CustomizedMetricSpecification"
    ]
    assert value(metrics["Metrics"], {"waiting": 9, "running": 0, "wanted": 0}) is None


def test_aws_takes_the_policies(aws: Aws, stack: dict[str, str], template: Template) -> None:
    """Their API, that is, in moto: its CloudFormation does not know them."""
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
