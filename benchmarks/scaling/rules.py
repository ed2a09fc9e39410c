"""The scaling rules, with the numbers in the manifests.

KEDA and the HorizontalPodAutoscaler follow their documentation (KEDA 2, Kubernetes autoscaling/v2); target tracking and
step scaling follow that of AWS Application Auto Scaling.
"""

import math
from collections import deque
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import yaml

ROOT = Path(__file__).parent.parent.parent
KEDA = ROOT / "infra/kubernetes/base/scaling.yaml"
AWS = ROOT / "infra/aws/scaling.yml"
SERVERLESS = ROOT / "serverless.yml"
HPA_SECONDS = 15
"""Interval in seconds of the HorizontalPodAutoscaler (--horizontal-pod-autoscaler-sync-period)."""
HPA_TOLERANCE = 0.1
"""The HorizontalPodAutoscaler ignores a smaller relative difference from the target."""
HPA_UP_PODS, HPA_UP_SHARE = 4, 1.0
"""By default it adds per 15 seconds at most four pods, or the current number of pods, whichever is more."""
AWS_SECONDS = 60
"""Interval in seconds of the metrics of AWS."""
ALARMS_OUT = 3
"""Number of one-minute values above the target after which target tracking adds workers."""
AWS_LATE = 1
"""Delay of the metrics, in minutes."""


class Look(NamedTuple):
    """Input of a rule: time in seconds, jobs waiting, running and ended, and the number of workers requested now."""

    now: float
    waiting: int
    running: int
    ended: int
    current: int


class Rule(Protocol):
    """A scaling rule; it is evaluated every `seconds` and requests at most `most` workers."""

    seconds: int
    most: int

    def wanted(self, look: Look) -> int:
        """The number of workers to request from now on."""
        ...


class Keda:
    """KEDA's ScaledObject: by the length of the queue and the number of running jobs; to zero when no job is left."""

    def __init__(self, most: int | None = None, slots: int | None = None) -> None:
        spec = next(one for one in yaml.safe_load_all(KEDA.read_text()) if one["kind"] == "ScaledObject")["spec"]
        down = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]["scaleDown"]
        [policy] = down["policies"]
        self.seconds: int = spec["pollingInterval"]
        self.most = most or spec["maxReplicaCount"]
        self.cooldown = spec["cooldownPeriod"]
        targets = {one["name"]: int(one["metadata"]["listLength"]) for one in spec["triggers"]}
        self.target, self.slots = targets["waiting"], slots or targets["running"]
        self._window = down["stabilizationWindowSeconds"]
        self._step: int = policy["value"]
        self._period: int = policy["periodSeconds"]
        self._recommended: deque[tuple[float, int]] = deque()
        self._gone: deque[float] = deque()
        self._active = -math.inf

    def wanted(self, look: Look) -> int:
        """See Rule."""
        now, waiting, running, _, current = look
        if waiting or running:
            self._active = now
        if current == 0:
            return 1 if waiting or running else 0
        if now - self._active > self.cooldown:
            return 0
        return current if now % HPA_SECONDS else self._hpa(now, waiting, running, current)

    def _hpa(self, now: float, waiting: int, running: int, current: int) -> int:
        """The number of workers by the HorizontalPodAutoscaler: the largest over its metrics (averages per worker)."""
        needs = (waiting / self.target, running / self.slots)
        raw = max(current if abs(need / current - 1) <= HPA_TOLERANCE else math.ceil(need) for need in needs)
        desired = min(self.most, max(1, raw))
        self._recommended.append((now, desired))
        while self._recommended[0][0] < now - self._window:
            self._recommended.popleft()
        if desired > current:
            return min(desired, max(current + HPA_UP_PODS, math.floor(current * (1 + HPA_UP_SHARE))))
        return self._down(now, current, max(one for _, one in self._recommended))

    def _down(self, now: float, current: int, desired: int) -> int:
        """Limit the removal of workers to the rate that the policy allows."""
        while self._gone and self._gone[0] <= now - self._period:
            self._gone.popleft()
        leaving = max(0, min(current - desired, self._step - len(self._gone)))
        self._gone.extend([now] * leaving)
        return current - leaving


class TargetTracking:
    """AWS ECS: target tracking of the backlog per worker to add workers; step scaling to remove them, and from zero."""

    seconds = AWS_SECONDS

    def __init__(self, most: int | None = None, jobs_per_worker: int | None = None, slots: int | None = None) -> None:
        resources = yaml.load(AWS.read_text(), _Loader)["Resources"]
        params = yaml.load(SERVERLESS.read_text(), _Loader)["params"]["default"]
        self.target = float(jobs_per_worker or params["jobs-per-worker"])
        self.slots, self.most = slots or int(params["slots"]), most or int(params["most-workers"])
        self._out: int = resources["KeepUp"]["Properties"]["TargetTrackingScalingPolicyConfiguration"][
            "ScaleOutCooldown"
        ]
        self._first = resources["First"]["Properties"]["StepScalingPolicyConfiguration"]["Cooldown"]
        ease = resources["Ease"]["Properties"]["StepScalingPolicyConfiguration"]
        [step] = ease["StepAdjustments"]
        self._share: float = -step["ScalingAdjustment"] / 100
        self._pause: int = ease["Cooldown"]
        self._idle_for = resources["EaseAlarm"]["Properties"]["EvaluationPeriods"]
        [jobs] = [one for one in resources["LastAlarm"]["Properties"]["Metrics"] if one["Id"] == "waiting"]
        self._quiet = jobs["MetricStat"]["Period"]
        self._history: deque[Look] = deque(maxlen=self._idle_for + AWS_LATE)
        self._acted = self._stepped = self._eased = -math.inf
        self._busy, self._ended = 0.0, 0

    def wanted(self, look: Look) -> int:
        """See Rule."""
        now, waiting, running, ended, current = look
        self._history.append(look)
        if waiting + running + ended - self._ended:
            self._busy, self._ended = now, ended
        if current == 0:
            if waiting + running and now - self._stepped >= self._first:
                self._stepped = now
                return 1
            return 0
        if now - self._busy >= self._quiet:
            return 0
        return self._up(now, current) or self._down(now, current) or current

    def _up(self, now: float, current: int) -> int | None:
        known = list(self._history)[:-AWS_LATE]
        values = [(one.waiting + one.running) / max(1, one.current) for one in known][-ALARMS_OUT:]
        if len(values) < ALARMS_OUT or min(values) <= self.target or now - self._acted < self._out:
            return None
        self._acted = now
        return min(self.most, math.ceil(current * values[-1] / self.target))

    def _down(self, now: float, current: int) -> int | None:
        known = list(self._history)[:-AWS_LATE][-self._idle_for :]
        if len(known) < self._idle_for or not all(map(self._is_idle, known)) or now - self._eased < self._pause:
            return None
        self._eased = now
        return current - max(1, math.floor(current * self._share))

    def _is_idle(self, look: Look) -> bool:
        return look.current > 1 and look.waiting < 1 and look.running < 0.9 * self.slots * look.current


class _Loader(yaml.SafeLoader):
    """Reads the tags of CloudFormation and the Serverless Framework (!Ref, …) as the values after them."""


def _tagged(loader: Any, suffix: str, node: yaml.Node) -> Any:
    kinds = {yaml.ScalarNode: loader.construct_scalar, yaml.SequenceNode: loader.construct_sequence}
    return kinds.get(type(node), loader.construct_mapping)(node)


_Loader.add_multi_constructor("!", _tagged)
