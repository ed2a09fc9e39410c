"""The plots of docs/scaling.md."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")

from matplotlib import pyplot as plt

from benchmarks.scaling.local import Run
from benchmarks.scaling.scenarios import PATTERNS, Outcome

PLOT_EVERY = 6
"""Every 6th sample is plotted: about one per pixel."""
GREY = "#808590"
"""A colour that is readable on light and on dark pages."""
STYLE: dict[Any, Any] = {
    "svg.hashsalt": "upres",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "savefig.transparent": True,
    **dict.fromkeys(
        (
            "text.color",
            "axes.labelcolor",
            "axes.edgecolor",
            "xtick.color",
            "ytick.color",
            "grid.color",
            "axes.titlecolor",
        ),
        GREY,
    ),
    "legend.labelcolor": GREY,
    "legend.frameon": False,
}


def write(
    folder: Path, runs: list[Run], by_rule: Mapping[str, Outcome], by_fleet: Mapping[int, Mapping[float, float]]
) -> None:
    """Write all plots into a folder."""
    with plt.rc_context(STYLE):
        _save(_days(by_rule), folder / "scaling-days.svg")
        _save(_fleets(by_fleet), folder / "scaling-fleets.svg")
        _save(_runs(runs), folder / "scaling-local.svg")


def _save(figure: Any, path: Path) -> None:
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def _days(by_rule: Mapping[str, Outcome]) -> Any:
    """Days with a million photos: waiting jobs and ready workers over time, one row per traffic pattern."""
    figure, axes = plt.subplots(len(PATTERNS), 2, figsize=(9, 7), sharex=True, layout="constrained")
    for row, pattern in zip(axes, PATTERNS, strict=True):
        for name, colour in (("Kubernetes", "#5b7cfa"), ("AWS", "#e0803a")):
            samples = by_rule[f"a million photos, {pattern}, {name}"].record.samples
            samples = samples[::PLOT_EVERY]
            hours = [at / 3600 for at, *_ in samples]
            row[0].plot(hours, [waiting for _, waiting, _, _ in samples], color=colour, label=name, linewidth=1)
            row[1].plot(hours, [ready for *_, ready in samples], color=colour, label=name, linewidth=1)
        row[0].set_ylabel(pattern)
        row[0].set_yscale("symlog", linthresh=10)
        row[0].set_ylim(bottom=0)
    axes[0][0].set_title("waiting jobs")
    axes[0][1].set_title("ready workers")
    axes[0][1].legend()
    for axis in axes[-1]:
        axis.set_xlabel("hour of the day")
        axis.set_xlim(0, 24)
        axis.set_xticks(range(0, 25, 4))
    return figure


def _fleets(by_fleet: Mapping[int, Mapping[float, float]]) -> Any:
    """The largest utilisation of workers, by the number of workers."""
    figure, axis = plt.subplots(figsize=(6, 3), layout="constrained")
    counts = list(by_fleet)
    for limit, colour in zip(next(iter(by_fleet.values())), ("#e0803a", "#5b7cfa"), strict=True):
        shares = [100 * busy[limit] for busy in by_fleet.values()]
        axis.plot(counts, shares, "o-", color=colour, label=f"95 % of the jobs wait less than {limit:g} s")
    axis.set_xscale("log")
    axis.set_ylim(0, 100)
    axis.set_xticks(counts, [f"{count:,}" for count in counts])
    axis.set_xlabel("workers")
    axis.set_ylabel("highest utilisation, %")
    axis.legend(loc="lower right")
    return figure


def _runs(runs: list[Run]) -> Any:
    """Measured and simulated times of the runs on this machine."""
    figure, axis = plt.subplots(figsize=(6, 2.6), layout="constrained")
    names = [f"{run.workers} worker{'s' * (run.workers > 1)}" for run in runs]
    places = range(len(runs))
    axis.barh([place - 0.2 for place in places], [run.seconds for run in runs], 0.38, color="#5b7cfa", label="measured")
    axis.barh(
        [place + 0.2 for place in places], [run.predicted for run in runs], 0.38, color="#b9c6f5", label="simulated"
    )
    axis.set_yticks(list(places), names)
    axis.invert_yaxis()
    axis.set_xlabel("seconds for all jobs")
    axis.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)
    return figure
