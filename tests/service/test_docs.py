"""Tests of the documentation: its examples run, its links lead to existing files, all settings are described."""

import os
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from standardwebhooks import Webhook

from tests.support.browser import Visit
from tests.support.events import RESULT
from tests.support.paths import ROOT, SAMPLES
from tests.support.servers import body, function, http_server
from upres.core import webhooks
from upres.core.schema import Succeeded
from upres.core.settings import PREFIX, Settings
from upres.embedded.stack import Local

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
ADDRESS = "http://127.0.0.1:8000"


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


def every(language: str) -> list[Any]:
    pages = [page for page in PAGES if page.name != "operations.md"]  # test_operations.py runs its examples
    found = [(page, index) for page in pages for index in range(len(blocks(page, language)))]
    return [pytest.param(page, index, id=f"{page.name}-{index}") for page, index in found]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with a photo, the samples and an empty folder, as the documented examples expect."""
    with Image.open(SAMPLES / "chelsea.png") as image:
        image.convert("RGB").crop((100, 60, 228, 156)).save(tmp_path / "photo.jpg")
    (tmp_path / "samples").symlink_to(SAMPLES)
    (tmp_path / "demo").mkdir()
    return tmp_path


def bash(script: str, local: Local, place: Path) -> str:
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "UPRES_URL": local.url}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script.replace(ADDRESS, local.url)],
        env=environment, cwd=place, capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


@pytest.mark.parametrize(("page", "index"), every("python"))
def test_each_python_example_runs(local: Local, place: Path, page: Path, index: int) -> None:
    (place / "script.py").write_text(blocks(page, "python")[index].replace(ADDRESS, local.url))
    before = set(place.rglob("*.*"))
    received = bash("python script.py", local, place)
    if ".save(" in blocks(page, "python")[index]:
        [made] = set(place.rglob("*_x4.*")) - before
        with Image.open(made) as image:
            assert image.size in [(512, 384), (1804, 1200)]
        assert "succeeded" in received


def test_the_documented_webhook_receiver_accepts_a_signed_event() -> None:
    [receiver] = [block for block in blocks(ROOT / "docs" / "batch.md", "python") if "standardwebhooks" in block]
    known: dict[str, object] = {}
    exec(receiver, known)
    result = RESULT.model_copy(update={"sr_image_url": "http://here/"})
    ended = Succeeded(job_id="0" * 32, result=result)
    text = webhooks.body(ended.model_dump(mode="json", exclude_none=True))
    now, secret = datetime.now(UTC), "whsec_" + "A" * 44
    signature = Webhook(secret).sign("msg_1", now, text)
    headers = {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": signature,
    }
    receive = known["receive"]
    assert callable(receive)
    assert receive(text.encode(), headers, secret) == "http://here/"


@pytest.mark.parametrize(("page", "index"), every("sh"))
def test_each_shell_example_runs(local: Local, place: Path, page: Path, index: int) -> None:
    received = bash(blocks(page, "sh")[index], local, place)
    assert '"type":"succeeded"' in received
    with Image.open(place / "photo_x4.jpg") as image:
        assert image.size == (512, 384)


def test_the_console_session_in_the_readme_runs_as_shown(local: Local, place: Path) -> None:
    [dialogue] = blocks(ROOT / "README.md", "console")
    commands = re.findall(r"^\$ ((?:.*\\\n)*.*)$", dialogue, re.MULTILINE)
    assert len(commands) >= 4
    received = bash("\n".join(commands).replace('"upscale_factor": 8', '"upscale_factor": 4'), local, place)
    for said in ('"type":"queued"', '"type":"started"', '"type":"succeeded"', '"code":"unsupported_factor"'):
        assert said in received
        assert said in dialogue
    assert (place / "demo" / "chelsea_x8.png").stat().st_size > 10_000


@pytest.mark.parametrize(("page", "index"), every("js"))
def test_each_javascript_example_runs(
    local: Local, visit: Visit, tmp_path: Path, png: bytes, page: Path, index: int
) -> None:
    block, first = blocks(page, "js")[index], blocks(ROOT / "docs" / "web.md", "js")[0]
    before = "" if "import" in block else "\n".join(first.splitlines()[:3])
    for url in function(local, tmp_path, UPRES_ACCESS="open", UPRES_CORS_ORIGINS="*"):
        html = f"""<!doctype html><title>page</title><link rel="icon" href="data:,"><img><script>
            const file = new File([new Uint8Array({list(png)})], "photo.png"), show = () => {{}};
            </script><script type="module">{before}
            {"{" if before else ""} {block} {"}" if before else ""}
            document.title = "ran";</script>"""
        data = html.replace(ADDRESS, url).encode()
        with http_server(body(data, headers={"Content-Type": "text/html; charset=utf-8"})) as elsewhere:
            visit.page.goto(elsewhere)
            visit.page.wait_for_function("document.title === 'ran'")
            if ".src = result" in block:
                visit.page.wait_for_function("document.querySelector('img').naturalWidth === 256")


@pytest.mark.parametrize(
    "page",
    [
        *PAGES,
        *(ROOT / name for name in ("ARCHITECTURE.md", "SECURITY.md", "CONTRIBUTING.md", "infra/kubernetes/README.md")),
    ],
)
def test_relative_links_lead_to_existing_files(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_every_setting_is_described_in_operations_md() -> None:
    described = (ROOT / "docs" / "operations.md").read_text()
    for name in Settings.model_fields:
        assert f"`{PREFIX}{name.upper()}`" in described, name
