"""How upres scales, measured and simulated.

    python -m benchmarks.scaling            prints figures as JSON lines
    python -m benchmarks.scaling --docs     also writes the plots of docs/scaling.md

Measured on this machine: the stages of single jobs, the start of a worker, 1, 2 and 4 workers on one queue, and the
cost of a job in Redis. Simulated with these times: a day of steady, bursty and daily traffic, under the scaling rules
in the manifests. MACHINE_SECONDS, the time to start a new machine, is an assumption: it could not be measured here.
"""

import argparse
import json
import os
import sys
from pathlib import Path

import numpy as np

from benchmarks.report import emit
from benchmarks.scaling import plots, redis
from benchmarks.scaling.fleet import Times
from benchmarks.scaling.local import JOBS, SIDES, SLOTS, Bench, Run, Stages, calibrate, race
from benchmarks.scaling.rules import Keda, TargetTracking
from benchmarks.scaling.scenarios import PATTERNS, Outcome, Plan, simulate

MACHINE_SECONDS = 120
"""Assumed seconds until a new machine with a GPU has booted and has pulled the container image."""
PHOTOS = (1.0, 4.0, 12.0)
"""Megapixels of typical photos. Their times are extrapolated from those of small images, by pixels."""
MILLION = 1_000_000
MOST = 1000
"""Largest number of workers in the simulations of a million photos a day."""
FLEETS = (1, 3, 10, 30, 100, 300, MOST)
LOADS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98)
LIMITS = (10.0, 60.0)
"""Waiting times in seconds; for each of them the largest possible utilisation is searched."""
LEAST_JOBS = 20_000
"""Least number of jobs in a simulation, so that the 95th percentile is stable."""
FITTING_SECONDS = 150.0
"""Seconds of waiting work per worker that jobs-per-worker allows: half of the time to start one (serverless.yml)."""
DOCS = Path(__file__).parent.parent.parent / "docs"


def jain(shares: tuple[int, ...]) -> float:
    """Jain's fairness index (Jain, Chiu and Hawe 1984): 1 when all shares are equal, 1/n when one has everything."""
    return sum(shares) ** 2 / (len(shares) * sum(share**2 for share in shares))


def photos(stages: Stages) -> list[Times]:
    """Times of PHOTOS on this machine, extrapolated by pixels from the largest measured size."""
    side = SIDES[-1]
    times = stages.by_side[side]
    return [Times(*(seconds * megapixels * 1e6 / side**2 for seconds in times)) for megapixels in PHOTOS]


def measured() -> tuple[Stages, list[Run]]:
    """Run all measurements, print their figures, and return stages and races."""
    with Bench() as bench:
        stages = calibrate(bench)
        for side, times in stages.by_side.items():
            print(json.dumps({"name": f"a lone job of {side}×{side}", **times._asdict()}), flush=True)
        runs = [race(bench, stages, count) for count in (1, 2, 4)]
        cost = redis.measure(bench)
    for run in runs:
        emit(f"{JOBS} jobs, {run.workers} workers", run.seconds, "s", "the simulation", run.predicted)
        emit(f"fairness of {run.workers} workers", jain(run.shares), "of 1", "all alike", 1.0)
    emit("Redis: jobs a second at half a core", cost.jobs_a_second, "1/s", "a million a day", MILLION / 86400)
    emit(
        "Redis: memory for a million jobs a day", cost.gigabytes(MILLION), "GB", "ten thousand", cost.gigabytes(10_000)
    )
    return stages, runs


def days(stages: Stages, price: float) -> dict[str, Outcome]:
    """Simulate a day of each traffic pattern under each rule, with small images and with a million photos."""
    cold, small, large = MACHINE_SECONDS + stages.cold_start, list(stages.by_side.values()), photos(stages)
    fitting = round(FITTING_SECONDS / float(np.mean([times.device for times in large])))
    of_small = int(TargetTracking().target)
    results = {}
    for pattern in PATTERNS:
        plan = Plan(pattern, 1e5, small, SLOTS, cold)
        for name, rule in (("Kubernetes", Keda(slots=SLOTS)), ("AWS", TargetTracking(slots=SLOTS))):
            results[f"100,000 small images, {pattern}, {name}"] = simulate(plan, rule)
    for pattern in PATTERNS:
        plan = Plan(pattern, MILLION, large, SLOTS, cold)
        for name, rule in (("Kubernetes", Keda(MOST, SLOTS)), ("AWS", TargetTracking(MOST, fitting, SLOTS))):
            results[f"a million photos, {pattern}, {name}"] = simulate(plan, rule)
    results[f"a million photos, daily, AWS with {of_small} jobs per worker, as if they were small"] = simulate(
        Plan("daily", MILLION, large, SLOTS, cold), TargetTracking(MOST, of_small, SLOTS)
    )
    print(json.dumps({"name": "jobs-per-worker for photos", "value": fitting}))
    for name, day in results.items():
        figures = {key: round(value, 3) for key, value in day._asdict().items() if key != "record"}
        print(json.dumps({"name": name, **figures, "cost": round(day.worker_hours * price, 2)}), flush=True)
        peak = day.workers_most * 24.0
        emit(f"worker hours, {name}", day.worker_hours, "h", "the most that were wanted, all day", peak)
    return results


def capacities(stages: Stages) -> dict[int, dict[float, float]]:
    """For each number of workers: the largest utilisation at which 95 % of photos wait less than each of LIMITS."""
    mix = photos(stages)
    mean = float(np.mean([times.device for times in mix]))
    results = {}
    for count in FLEETS:
        hours = max(2.0, LEAST_JOBS * mean / count / 3600)
        busy = {
            load: _wait(count, Plan("steady", load * count / mean * 86400, mix, SLOTS, 0.0, hours)) for load in LOADS
        }
        results[count] = {limit: max((load for load in LOADS if busy[load] <= limit), default=0.0) for limit in LIMITS}
        per_hour = {
            f"photos an hour, {limit:g} s": round(results[count][limit] * count / mean * 3600) for limit in LIMITS
        }
        print(json.dumps({"name": f"{count} workers", "busy": results[count], **per_hour}), flush=True)
    return results


def _wait(workers: int, plan: Plan) -> float:
    return simulate(plan, workers).wait_p95


def main() -> int:
    """Run measurements and simulations; print one JSON line per figure."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__.partition("\n")[0])
    parser.add_argument("--price", type=float, default=1.0, help="price of a worker per hour (default: 1)")
    parser.add_argument("--docs", action="store_true", help="also write the plots of docs/scaling.md")
    options = parser.parse_args()
    print(json.dumps({"name": "this machine", "cores": os.cpu_count(), "slots": SLOTS}))
    stages, runs = measured()
    by_rule, by_fleet = days(stages, options.price), capacities(stages)
    if options.docs:
        plots.write(DOCS, runs, by_rule, by_fleet)
    return 0


if __name__ == "__main__":
    sys.exit(main())
