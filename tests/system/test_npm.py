"""The npm package of the browser library: packed, installed in projects, type-checked, and used in web pages."""

import json
import re
import shutil
import tarfile
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import NamedTuple

import pytest
from playwright.sync_api import FilePayload, Page, expect
from pydantic import BaseModel

import upres
from tests.support.browser import ENLARGING_SECONDS, SECONDS, Draw, Visit
from tests.support.npm import MISSING, NPM, output, pack, project, served, tsc
from tests.support.paths import ROOT
from tests.support.servers import body, function, http_server
from tests.support.typescript import interface
from upres.core import api, schema
from upres.embedded.stack import Local
from upres.function.model_list import ModelSummary

pytestmark = pytest.mark.timeout(600)
USES = Path(__file__).parent / "npm"
"""Folder of programs that use the package."""
LIBRARY = ("requests.js", "upres.js")
TOOLS = ("typescript@5.9.3", "esbuild@0.28.2", "react@19.3.1", "react-dom@19.3.1", "@types/react@19.3.0")
RESOLUTIONS = {"nodenext": ("--module", "nodenext"), "bundler": ("--module", "esnext", "--moduleResolution", "bundler")}

WRONG = {
    "factor": ("upres.submit(file, { factor: '3' })", "Type 'string' is not assignable to type 'number'."),
    "address": ("new Upres()", "Expected 1-2 arguments, but got 0."),
    "field": ("upres.subscribe(job).then((result) => result.nope)", "Property 'nope' does not exist on type 'Result'."),
    "event": ("upres.subscribe(job, (event) => event.reason)", "Property 'reason' does not exist on type 'JobEvent'."),
    "outcome": ("useUpres(job).result.width", "Object is possibly 'null'."),
}
WRONG_USE = """
import {{ Upres, type Job }} from "upres";
import {{ useUpres }} from "upres/react";
declare const upres: Upres, job: Job, file: File;
{}
"""
EVENTS = (
    schema.Queued,
    schema.Started,
    schema.Progress,
    schema.Requeued,
    schema.Succeeded,
    schema.Failed,
    schema.Cancelled,
)
ANSWERS = (schema.Snapshot, schema.Result, schema.Failure, api.PreviewTile, api.Estimate)
MODELS: dict[str, type[BaseModel]] = {
    **{model.__name__: model for model in (*EVENTS, *ANSWERS, api.EstimateRequest)},
    "Job": api.JobAccepted,
    "Model": ModelSummary,
}
"""Name of the interface in upres.d.ts → the server's model of the same data."""
SAME = """
import type * as upres from "upres";
type Both<A> = [A, Required<A>];
type Same<A, B> = Both<A> extends Both<B> ? (Both<B> extends Both<A> ? true : false) : false;
"""


@pytest.fixture(scope="module")
def tarball(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pack(tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="module")
def plain(tarball: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return project(tmp_path_factory.mktemp("plain"), tarball)


@pytest.fixture(scope="module")
def typed(tarball: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with the package, TypeScript, React and a bundler."""
    return project(tmp_path_factory.mktemp("typed"), tarball, *TOOLS)


@pytest.fixture
def server(local: Local, tmp_path: Path) -> Iterator[str]:
    yield from function(local, tmp_path, UPRES_ACCESS="open", UPRES_CORS_ORIGINS="*")


@pytest.fixture
def app(visit: Visit, server: str, typed: Path) -> Iterator[Page]:
    """A browser page that runs app.js with React's development build."""
    shutil.copy(USES / "app.js", typed)
    options = ("--bundle", "--format=esm", '--define:process.env.NODE_ENV="development"', "--outfile=bundle.js")
    output(typed, "node_modules/.bin/esbuild", "app.js", *options)
    page = b'<!doctype html><title>React</title><div></div><script type="module" src="/bundle.js"></script>'
    with http_server(served({"/": page, "/bundle.js": (typed / "bundle.js").read_bytes()})) as address:
        visit.page.goto(f"{address}/?server={server}")
        yield visit.page


class Slow(NamedTuple):
    """The URL of an image that the server sends only after `release` is set; `requested` is set by the request."""

    url: str
    requested: threading.Event
    release: threading.Event


@pytest.fixture
def slow(png: bytes) -> Iterator[Slow]:
    requested, release = threading.Event(), threading.Event()

    def answer(handler: BaseHTTPRequestHandler) -> None:
        requested.set()
        release.wait(SECONDS)
        with suppress(OSError):  # the client may have closed the connection
            body(png)(handler)

    with http_server(answer) as address:
        yield Slow(f"{address}/cat.png", requested, release)
        release.set()


def choose(page: Page, data: bytes) -> None:
    page.set_input_files("input", FilePayload(name="cat.png", mimeType="image/png", buffer=data))


def submit_slow(page: Page, slow: Slow) -> None:
    """Submit the slow image; wait until the worker has requested it and the page shows the job as running."""
    page.evaluate("url => submit(url)", slow.url)
    assert slow.requested.wait(SECONDS)
    expect(page.locator("output")).to_have_text("running", timeout=SECONDS * 1000)


def shows(page: Page, width: int) -> None:
    """Wait until the page shows a result image of this width in pixels."""
    script = "width => document.querySelector('img')?.naturalWidth === width"
    page.wait_for_function(script, arg=width, timeout=ENLARGING_SECONDS * 1000)


def open_streams(page: Page) -> int:
    count: int = page.evaluate("streams.filter((stream) => stream.readyState !== EventSource.CLOSED).length")
    return count


def test_the_tarball_contains_exactly_the_files_of_the_library(tarball: Path) -> None:
    with tarfile.open(tarball) as packed:
        held = {member.name: packed.extractfile(member) for member in packed.getmembers()}
        files = {name: file.read() for name, file in held.items() if file}
    own = ("LICENSE", "README.md", "package.json", "react.d.ts", "react.js", "upres.d.ts")
    assert sorted(files) == sorted(f"package/{name}" for name in (*own, *LIBRARY))
    for name in LIBRARY:
        assert files[f"package/{name}"] == (ROOT / "client/web" / name).read_bytes()
    manifest = json.loads(files["package/package.json"])
    assert (manifest["name"], manifest["version"], manifest["license"]) == ("upres", upres.__version__, "MIT")
    assert "dependencies" not in manifest
    assert not {*LIBRARY, "LICENSE"} & {path.name for path in tarball.parent.iterdir()}


def test_node_imports_the_library_without_react_and_the_hook_with_react(plain: Path, typed: Path) -> None:
    installed = [path.name for path in (plain / "node_modules").iterdir() if not path.name.startswith(".")]
    assert installed == ["upres"]
    library = 'import { Upres, UpresError } from "upres"; console.log(typeof Upres, typeof UpresError)'
    hook = 'import { useUpres } from "upres/react"; console.log(typeof useUpres)'
    assert output(plain, "node", "--input-type=module", "--eval", library) == "function function\n"
    assert output(typed, "node", "--input-type=module", "--eval", hook) == "function\n"


@pytest.mark.parametrize("resolution", RESOLUTIONS)
def test_a_program_that_uses_all_exported_types_compiles_in_strict_mode(typed: Path, resolution: str) -> None:
    consumer = (USES / "consumer.ts").read_text()
    types = (NPM / "upres.d.ts").read_text() + (NPM / "react.d.ts").read_text()
    exported = re.findall(r"^export (?:class|function|interface|type) (\w+)", types, re.MULTILINE)
    assert [name for name in exported if not re.search(rf"\b{name}\b", consumer)] == []
    done = tsc(typed, "consumer.ts", consumer, "--strict", "--exactOptionalPropertyTypes", *RESOLUTIONS[resolution])
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("wrong", WRONG)
def test_each_wrong_use_gives_the_expected_type_error(typed: Path, wrong: str) -> None:
    use, message = WRONG[wrong]
    done = tsc(typed, f"{wrong}.ts", WRONG_USE.format(use), "--strict", "--module", "nodenext")
    [error] = [line for line in done.stdout.splitlines() if "error TS" in line]
    assert message in error


def test_the_typescript_interfaces_equal_the_schemas_of_the_server(typed: Path) -> None:
    lines = [f"export const {name}: Same<upres.{name}, {interface(model)}> = true;" for name, model in MODELS.items()]
    done = tsc(typed, "same.ts", "\n".join([SAME, *lines]), "--strict", "--module", "nodenext")
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("page", [NPM / "README.md", ROOT / "docs" / "web.md"], ids=["README", "web"])
def test_the_examples_in_the_documentation_pass_the_type_check(typed: Path, page: Path) -> None:
    blocks = re.findall(r"^```\w+\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
    examples = [block for block in blocks if 'from "upres' in block]
    assert len(examples) == 2
    (typed / "given.d.ts").write_text("declare const file: File;")
    for example in examples:
        options = ("--allowJs", "--checkJs", "--jsx", "react-jsx", "--module", "nodenext", "given.d.ts")
        done = tsc(typed, "example.jsx", example, *options)
        assert done.returncode == 0, done.stdout


def test_a_page_without_a_build_step_uses_the_library(visit: Visit, server: str, plain: Path, png: bytes) -> None:
    files = {f"/node_modules/upres/{name}": (plain / "node_modules/upres" / name).read_bytes() for name in LIBRARY}
    files["/"] = (USES / "plain.html").read_bytes()
    with http_server(served(files)) as address:
        visit.page.goto(address)
        visit.page.wait_for_function("typeof window.use === 'function'")
        answer = visit.page.evaluate("([server, bytes]) => use(server, bytes)", [server, list(png)])
    assert answer["missing"] == MISSING
    assert (answer["width"], answer["code"]) == (128, "invalid_image_url")
    assert (answer["first"], answer["stopped"], answer["events"]) == ("AbortError", "AbortError", ["queued"])
    assert (answer["streams"], answer["open"]) == (2, 0)
    visit.wrong = [text for text in visit.wrong if "status of 4" not in text]


def test_the_react_hook_reports_the_progress_of_a_job_up_to_its_image(app: Page, draw: Draw) -> None:
    expect(app.locator("output")).to_have_text("")
    choose(app, draw("cat.png", (400, 300)).read_bytes())
    shows(app, 800)
    views = app.evaluate("views.filter((view) => view.status)")
    percents = [view["percent"] for view in views]
    assert percents == sorted(percents)
    assert (percents[0], percents[-1], len(set(percents)) > 3) == (0, 100, True), percents
    assert {view["status"] for view in views} == {"queued", "running", "succeeded"}
    assert views[-1]["connected"] is True
    assert (views[-1]["stage"], views[-1]["etaSeconds"], views[-1]["error"]) == (None, None, None)
    assert views[-1]["tilesDone"] == views[-1]["tilesTotal"] > 0
    events = app.evaluate("events")
    assert (events[0], events.count("queued"), events.count("succeeded"), events[-1]) == ("queued", 1, 1, "succeeded")
    assert (app.evaluate("streams.length"), open_streams(app)) == (1, 0)


@pytest.mark.parametrize(("mode", "repeated"), [("hidden", False), ("gone", True)])
def test_the_react_hook_closes_the_stream_of_a_hidden_or_removed_component(
    app: Page, slow: Slow, mode: str, repeated: bool
) -> None:
    submit_slow(app, slow)
    assert open_streams(app) == 1
    app.evaluate("mode => show(mode)", mode)
    app.wait_for_function("streams.every((stream) => stream.readyState === EventSource.CLOSED)")
    before = app.evaluate("events")
    app.evaluate("show('visible')")  # after "gone" it is mounted again, with a job, and StrictMode mounts it twice
    slow.release.set()
    shows(app, 128)
    again = app.evaluate("events")[len(before) :]
    assert (before.count("queued"), again.count("queued"), again.count("succeeded")) == (1, int(repeated), 1)
    assert (app.evaluate("streams.length"), open_streams(app)) == (2, 0)
    assert app.evaluate("views.filter((view) => view.error)") == []


def test_the_react_hook_cancels_a_job(app: Page, slow: Slow) -> None:
    submit_slow(app, slow)
    app.get_by_text("Cancel").click()
    expect(app.locator("output")).to_have_text("cancelled", timeout=SECONDS * 1000)
    assert app.evaluate("[views.at(-1).error, events.at(-1)]") == [None, "cancelled"]


def test_the_react_hook_resets_its_state_for_a_new_job_and_shows_its_error(app: Page, png: bytes) -> None:
    choose(app, png)
    shows(app, 128)
    before = app.evaluate("views.length")
    choose(app, b"no image")
    expect(app.locator("code")).to_have_text("not_an_image", timeout=SECONDS * 1000)
    views = app.evaluate("views")[before:]
    assert (views[0]["status"], views[0]["percent"]) == ("queued", 0)
    assert [view for view in views if view["result"]] == []
    assert (views[-1]["status"], views[-1]["stage"]) == ("failed", None)
