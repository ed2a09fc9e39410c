"""The dashboard and the alerts, tested in a real Prometheus that scrapes a real function and a real worker."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
import requests
import yaml

from infra import monitoring
from tests.support.paths import ROOT
from tests.support.servers import body, function, http_server
from tests.support.waiting import wait_until
from tests.support.workers import worker
from upres.client import Client
from upres.client.errors import JobFailed
from upres.core import errors
from upres.core.errors import FetchError, ImageError, RequestError, UpresError
from upres.embedded.child import Child, accepts, free_port
from upres.embedded.stack import Local, tool

RULES = monitoring.RULES
RARE = {"Store", "Failures", "Fetching"}
"""Graphs that have no data as long as nothing fails."""

pytestmark = pytest.mark.without_worker


def alerts() -> list[dict[str, Any]]:
    [group] = yaml.safe_load(RULES.read_text())["groups"]
    return cast("list[dict[str, Any]]", group["rules"])


def graphs() -> list[dict[str, Any]]:
    return [panel for panel in json.loads(monitoring.DASHBOARD.read_text())["panels"] if panel["type"] != "row"]


def test_the_dashboard_file_equals_the_output_of_its_generator() -> None:
    assert monitoring.DASHBOARD.read_text() == monitoring.dashboard(), "run: python -m infra.monitoring"
    assert len(graphs()) == 21


def test_the_kubernetes_alerts_equal_the_output_of_their_generator() -> None:
    assert monitoring.OPERATORS_RULES.read_text() == monitoring.operators_rules(), "run: python -m infra.monitoring"


def test_the_alert_rules_pass_promtool_and_every_alert_has_a_test() -> None:
    promtool = tool("promtool")  # part of Debian's package prometheus
    subprocess.run([promtool, "check", "rules", "--lint-fatal", str(RULES)], check=True, capture_output=True)
    tests = RULES.with_suffix(".test.yml")
    done = subprocess.run([promtool, "test", "rules", str(tests)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    tested = {
        case["alertname"] for test in yaml.safe_load(tests.read_text())["tests"] for case in test["alert_rule_test"]
    }
    assert tested == {alert["alert"] for alert in alerts()}


def test_each_alert_has_an_entry_in_the_runbook() -> None:
    headings = re.findall(r"^#+ (.+)$", (ROOT / "docs/operations.md").read_text(), re.MULTILINE)
    anchors = {re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    for alert in alerts():
        document, _, anchor = alert["annotations"]["runbook_url"].partition("#")
        assert document == "docs/operations.md"
        assert anchor in anchors


def test_the_job_failure_alert_ignores_errors_that_the_client_caused() -> None:
    [rule] = [alert for alert in alerts() if alert["alert"] == "UpresJobsFail"]
    [pattern] = set(re.findall(r'code=~"([^"]+)"', rule["expr"]))
    theirs = (RequestError, ImageError, FetchError)
    for kind in vars(errors).values():
        if isinstance(kind, type) and issubclass(kind, UpresError) and kind not in theirs:
            assert bool(re.fullmatch(pattern, kind.code)) != issubclass(kind, theirs), kind


@pytest.fixture
def prometheus(local: Local, tmp_path: Path) -> Iterator[str]:
    """The URL of a Prometheus that has scraped a function and a worker during one successful and one failed job."""
    ours, theirs, own = free_port(), free_port(), free_port()
    jobs = {"upres-function": ours, "upres-worker": theirs}
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(RULES)],
        "scrape_configs": [
            {"job_name": name, "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]} for name, port in jobs.items()
        ],
    }
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
    program = shutil.which("prometheus") or pytest.fail("install Prometheus (Debian's package prometheus)")
    options = [f"--config.file={tmp_path}/prometheus.yml", f"--storage.tsdb.path={tmp_path}/data"]
    child = Child("prometheus", [program, *options, f"--web.listen-address=127.0.0.1:{own}"], {}, tmp_path)
    urls = function(local, tmp_path, UPRES_METRICS_PORT=str(ours))
    with Client(next(urls)) as client, worker(local, UPRES_METRICS_PORT=str(theirs)):
        child.wait_ready(lambda: accepts(own))
        yield from _at_work(client, f"http://127.0.0.1:{own}")
    next(urls, None)
    child.stop()


def _at_work(client: Client, url: str) -> Iterator[str]:
    photo = (ROOT / "samples/chelsea.png").read_bytes()
    wait_until(lambda: _value(url, "sum(up)") == 2)
    client.upscale(photo, 2)
    with http_server(body(b"", 404)) as image, pytest.raises(JobFailed):
        client.upscale(f"{image}/a.png")
    wait_until(lambda: (_value(url, "sum(rate(upres_tiles_total[10s]))") or 0) > 0)
    yield url


def _judged(url: str) -> list[dict[str, Any]]:
    """Return the alert rules evaluated on data scraped from now on; in older data a job may still be running."""
    scraped = datetime.now(UTC) + timedelta(seconds=2)
    wait_until(lambda: all(datetime.fromisoformat(rule["lastEvaluation"]) > scraped for rule in _rules(url)))
    return _rules(url)


def _rules(url: str) -> list[dict[str, Any]]:
    [group] = requests.get(f"{url}/api/v1/rules", timeout=10).json()["data"]["groups"]
    return list(group["rules"])


def _shows(url: str, expression: str) -> bool:
    return _value(url, expression) is not None


def _value(url: str, expression: str) -> float | None:
    answer = requests.get(f"{url}/api/v1/query", params={"query": expression}, timeout=10).json()
    assert answer["status"] == "success", (expression, answer)
    found = answer["data"]["result"]
    return float(found[0]["value"][1]) if found else None


def test_graphs_have_data_and_no_alert_fires_after_one_good_and_one_bad_job(prometheus: str, local: Local) -> None:
    for graph in graphs():
        for target in graph["targets"]:
            expression = target["expr"].replace("$__rate_interval", "20s")
            if graph["title"] in RARE:
                _value(prometheus, expression)
            else:
                wait_until(partial(_shows, prometheus, expression), 10)
    received = _judged(prometheus)
    assert [rule["name"] for rule in received if rule["health"] == "err"] == []
    assert [rule["name"] for rule in received if rule["state"] != "inactive"] == []
