"""The files for Lambda: without what is never used there, with bytecode, and enough for every kind of request."""

import json
import os
from pathlib import Path

import pytest

from benchmarks.cold_start import bundled, run
from infra.aws import slim
from tests.support.paths import ROOT
from upres.embedded.stack import Local

REQUESTS = """
import json, sys
import upres.function.backlog
from upres.function.handler import handler

def answer(method, path, body=None):
    http = {"method": method, "path": path, "sourceIp": "192.0.2.1"}
    event = {"version": "2.0", "rawQueryString": "", "headers": {"host": "a", "prefer": "wait=0"},
             "requestContext": {"http": http}, "body": json.dumps(body)}
    return handler(event, None)["statusCode"]

print(json.dumps({
    "statuses": [
        answer("POST", "/v1/jobs", {"image_base64": "aW1hZ2U="}), answer("POST", "/v1/uploads", {"bytes": 9}),
        answer("GET", "/v1/models"), answer("GET", "/openapi.json"), answer("GET", "/"), answer("GET", "/readyz"),
    ],
    "loaded": [name for name in ("uvicorn", "uvloop", "httptools") if name in sys.modules],
    "cached": [module.__cached__ for module in list(sys.modules.values()) if getattr(module, "__cached__", None)],
}))
"""
pytestmark = pytest.mark.without_worker


def test_the_bundle_answers_every_kind_of_request_and_compiles_nothing(local: Local, tmp_path: Path) -> None:
    bundled(tmp_path)
    environment = {**os.environ, **local.environment, "UPRES_ACCESS": "open"}
    found = json.loads(run(REQUESTS, tmp_path, environment))
    assert found["statuses"] == [202, 201, 200, 200, 200, 200]
    assert found["loaded"] == []
    ours = [Path(cached) for cached in found["cached"] if cached.startswith(str(tmp_path))]
    assert len(ours) > 300
    assert [cached for cached in ours if not cached.exists()] == []
    for cached in ours:  # flags of PEP 552: a hash, which is not compared
        assert int.from_bytes(cached.read_bytes()[4:8], "little") == 0b01, cached


def test_the_bytecode_is_for_the_runtime_of_the_functions() -> None:
    assert f"runtime: python{slim.RUNTIME}\n" in (ROOT / "serverless.yml").read_text()


def test_without_the_right_python_the_bundle_is_made_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(slim, "RUNTIME", "3.0")
    (tmp_path / "a.py").write_text("")
    slim.compile_sources(tmp_path)
    assert "Install python3.0" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["a.py"]
