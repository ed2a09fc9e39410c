"""`python -m tests.chaos`: run all chaos scenarios with one seed and print a table of the results.

The exit code is 1 if an invariant was broken. With the default options it takes about a quarter of an hour.
"""

import argparse
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from rich.console import Console
from rich.table import Table

from tests.chaos import growth, images, others, rolling, scenarios
from tests.chaos.proxy import FaultProxy
from tests.chaos.scenarios import Outcome
from upres.embedded.stack import Local


@contextmanager
def cut_off(log: IO[bytes]) -> Iterator[tuple[Local, FaultProxy]]:
    """Run an upres without workers, whose processes connect to Redis through a proxy that can inject faults."""
    with FaultProxy() as proxy:
        local = Local(environment={"UPRES_REDIS_URL": f"redis://127.0.0.1:{proxy.port}/0"})
        proxy.target = local.redis_port
        with local:
            local.stop("worker")
            yield local, proxy


def run(seed: int, jobs: int, kills: int, seconds: float, rounds: int, log: IO[bytes]) -> Iterator[Outcome]:
    """Run all scenarios, one after the other."""
    with Local(environment=images.ENVIRONMENT) as local:
        local.stop("worker")
        yield scenarios.subscribers(local, log, seed)
        yield scenarios.same_key(local, log, seed)
        yield scenarios.killed_workers(local, log, seed, jobs, kills, seconds)
        yield others.sick_store(local, log, seed, jobs, seconds / 6)
        yield rolling.restarts(local, log, seed, rounds)
        local.start("worker")
        yield growth.mixed(local, seed, 4 * jobs // 10)
    with cut_off(log) as (local, proxy):
        yield scenarios.broken_redis(local, proxy, log, seed, jobs, rounds)
        yield others.demotions(local, proxy, log, seed, jobs, rounds)


def main() -> int:
    """Run the command; return exit code 0 if every invariant held."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6), help="the plan (default: a new one)")
    parser.add_argument("--jobs", type=int, default=1000, help="jobs while workers are killed (default: 1000)")
    parser.add_argument("--kills", type=int, default=100, help="workers killed (default: 100)")
    parser.add_argument("--seconds", type=float, default=330, help="over which they are killed (default: 330)")
    parser.add_argument("--rounds", type=int, default=4, help="of faults around Redis (default: 4)")
    parser.add_argument("--log", type=Path, default=Path("build/chaos.log"), help="what workers say")
    options = parser.parse_args()
    options.log.parent.mkdir(exist_ok=True)
    table = Table("scenario", "injected", "seen", "held", title=f"seed {options.seed}")
    held = True
    with options.log.open("wb") as log:
        for outcome in run(options.seed, options.jobs, options.kills, options.seconds, options.rounds, log):
            held = held and not outcome.faults
            table.add_row(outcome.name, _lines(outcome.injected), _lines(outcome.seen), _verdict(outcome))
            print(f"{outcome.name}: {'held' if not outcome.faults else outcome.faults[:5]}", file=sys.stderr)
    Console(width=120).print(table)
    return 0 if held else 1


def _lines(figures: "dict[str, int] | dict[str, str]") -> str:
    return "\n".join(f"{name}: {figure}" for name, figure in figures.items())


def _verdict(outcome: Outcome) -> str:
    return "\n".join(outcome.faults[:10]) if outcome.faults else "all"


if __name__ == "__main__":
    sys.exit(main())
