"""The dashboard and alerts as code: `python -m infra.monitoring` writes them to the files that use them.

    infra/grafana/upres.json             the dashboard, from the panels below
    infra/kubernetes/base/alerts.yaml    infra/prometheus/rules.yml, for the Prometheus Operator

Every function process reports the same values from Redis, so queries use `max`. Values of processes are summed.
"""

from pathlib import Path
from typing import NamedTuple

import yaml
from grafana_foundation_sdk.builders.common import VizLegendOptions
from grafana_foundation_sdk.builders.dashboard import Dashboard, DatasourceVariable, Row
from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.builders.timeseries import Panel
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import LegendDisplayMode, LegendPlacement
from grafana_foundation_sdk.models.dashboard import DataSourceRef

INFRA = Path(__file__).parent
DASHBOARD = INFRA / "grafana" / "upres.json"
RULES = INFRA / "prometheus" / "rules.yml"
OPERATORS_RULES = INFRA / "kubernetes" / "base" / "alerts.yaml"
SOURCE = DataSourceRef(type_val="prometheus", uid="${source}")
WIDTH, HEIGHT = 8, 7
"""Size of a panel, in cells of Grafana's grid of 24 columns."""


class Graph(NamedTuple):
    """One panel: title, description, unit, and its lines as legend → PromQL query."""

    title: str
    about: str
    unit: str
    lines: dict[str, str]


def quantiles(metric: str, by: str = "", legend: str = "") -> dict[str, str]:
    """Return queries for the median and the 95th percentile of a histogram."""
    labels = f"le, {by}" if by else "le"
    return {
        f"{legend} p{percent}".strip(): f"histogram_quantile({percent / 100}, sum by ({labels}) "
        f"(rate({metric}_bucket[$__rate_interval])))"
        for percent in (50, 95)
    }


JOBS = (
    Graph(
        "Jobs ended",
        "Jobs per minute, by outcome. Most failures are bad images; «Failures» shows the error codes.",
        "cpm",
        {
            "{{outcome}}": "60 * sum by (outcome) "
            "(max by (model, outcome, code) (rate(upres_jobs_total[$__rate_interval])))"
        },
    ),
    Graph(
        "Queue",
        "Jobs that wait in the queue, and jobs that workers run.",
        "short",
        {"waiting": "max(upres_queue_jobs)", "running": "max(upres_running_jobs)"},
    ),
    Graph(
        "Oldest waiting job",
        "Time since the oldest waiting job was accepted.",
        "s",
        {"oldest": "max(upres_queue_oldest_seconds)"},
    ),
    Graph("Waiting time", "From acceptance until a worker took the job.", "s", quantiles("upres_wait_seconds")),
    Graph(
        "Workers",
        "Workers that accept jobs, and the number of jobs that they can run at once (slots).",
        "short",
        {"workers": "max(upres_workers)", "slots": "max(upres_worker_slots)", "busy slots": "sum(upres_slots_busy)"},
    ),
    Graph(
        "Failures",
        "Failed jobs per minute, by error code.",
        "cpm",
        {
            "{{code}}": "60 * sum by (code) (max by (model, outcome, code) "
            '(rate(upres_jobs_total{outcome="failed"}[$__rate_interval]))) > 0',
            "dead letters": "max(upres_dead_letters)",
        },
    ),
)
WORKERS = (
    Graph(
        "Device busy",
        "Share of time in which the device was busy. If it is low while jobs wait, another stage is the bottleneck.",
        "percentunit",
        {"{{instance}}": "rate(upres_device_busy_seconds_total[$__rate_interval])"},
    ),
    Graph(
        "Time per stage",
        "Mean per job.",
        "s",
        {
            "{{stage}}": "sum by (stage) (rate(upres_stage_seconds_sum[$__rate_interval])) / "
            "sum by (stage) (rate(upres_stage_seconds_count[$__rate_interval]))"
        },
    ),
    Graph(
        "Slowest stages",
        "95th percentile per job.",
        "s",
        {"{{stage}} p95": quantiles("upres_stage_seconds", "stage")["p95"]},
    ),
    Graph(
        "Tiles",
        "Tiles per second, and mean number of tiles in a batch.",
        "short",
        {
            "tiles": "sum(rate(upres_tiles_total[$__rate_interval]))",
            "tiles in a batch": "sum(rate(upres_batch_tiles_sum[$__rate_interval])) / "
            "sum(rate(upres_batch_tiles_count[$__rate_interval]))",
        },
    ),
    Graph(
        "Device memory",
        "Memory in use on the device, by all processes.",
        "bytes",
        {"{{instance}}": 'upres_device_memory_bytes{state="used"}'},
    ),
    Graph(
        "Cold start",
        "Time from the start of the process until it accepted jobs.",
        "s",
        {"{{instance}}": "upres_cold_start_seconds"},
    ),
    Graph(
        "Model versions",
        "Number of workers that have each model version loaded.",
        "short",
        {"{{model}} {{version}}": "sum by (model, version) (upres_model_info)"},
    ),
    Graph(
        "Fetching",
        "Failed downloads of images per minute, by error code.",
        "cpm",
        {"{{code}}": "60 * sum by (code) (rate(upres_fetch_errors_total[$__rate_interval]))"},
    ),
    Graph(
        "Events",
        "Published events per second, by type.",
        "short",
        {"{{type}}": "sum by (type) (rate(upres_events_published_total[$__rate_interval]))"},
    ),
)
FUNCTION = (
    Graph(
        "Requests",
        "Requests per second, by status code.",
        "reqps",
        {"{{status}}": "sum by (status) (rate(upres_http_request_seconds_count[$__rate_interval]))"},
    ),
    Graph(
        "Response time",
        "Time until the response begins: 95th percentile of each route.",
        "s",
        {"{{route}}": quantiles("upres_http_request_seconds", "route")["p95"]},
    ),
    Graph("Event streams", "Open event streams.", "short", {"{{instance}}": "upres_sse_subscribers"}),
    Graph(
        "Store",
        "Failed requests to the object store per minute.",
        "cpm",
        {"{{kind}}": "60 * sum by (kind) (rate(upres_store_errors_total[$__rate_interval]))"},
    ),
    Graph("Redis", "1 if Redis answers, else 0.", "short", {"{{instance}}": "upres_redis_up"}),
    Graph(
        "Memory",
        "Resident memory of each process.",
        "bytes",
        {"{{job}} {{instance}}": "process_resident_memory_bytes"},
    ),
)


def panel(graph: Graph) -> Panel:
    """The Grafana panel of a graph."""
    legend = VizLegendOptions().display_mode(LegendDisplayMode.LIST).placement(LegendPlacement.BOTTOM).show_legend(True)
    built = Panel().title(graph.title).description(graph.about).unit(graph.unit).span(WIDTH).height(HEIGHT).min(0)
    built = built.datasource(SOURCE).legend(legend)
    for number, (name, expression) in enumerate(graph.lines.items()):
        built = built.with_target(Dataquery().ref_id(chr(ord("A") + number)).expr(expression).legend_format(name))
    return built


def dashboard() -> str:
    """The dashboard as JSON, as Grafana imports it."""
    built = Dashboard("upres").uid("upres").tags(["upres"]).refresh("30s").time("now-3h", "now").timezone("browser")
    built = built.with_variable(DatasourceVariable("source").label("Prometheus").type("prometheus"))
    for title, graphs in (("Jobs", JOBS), ("Workers", WORKERS), ("Function", FUNCTION)):
        built = built.with_row(Row(title))
        for graph in graphs:
            built = built.with_panel(panel(graph))
    return JSONEncoder(sort_keys=True, indent=2).encode(built.build()) + "\n"


def operators_rules() -> str:
    """The alerts as a PrometheusRule in YAML, for the Prometheus Operator."""
    rule = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "upres"},
        "spec": yaml.safe_load(RULES.read_text()),
    }
    return "# Written by infra/monitoring.py.\n" + yaml.safe_dump(rule, sort_keys=False, width=110)


if __name__ == "__main__":
    DASHBOARD.write_text(dashboard())
    OPERATORS_RULES.write_text(operators_rules())
