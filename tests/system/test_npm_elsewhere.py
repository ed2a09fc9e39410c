"""The npm package where there is no module of a web page: in Node.js without EventSource, and in a classic script."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.browser import Visit
from tests.support.npm import MISSING, output, pack, project, served
from tests.support.servers import function, http_server
from upres.embedded.stack import Local

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with the package and a bundler."""
    tarball = pack(tmp_path_factory.mktemp("source"))
    return project(tmp_path_factory.mktemp("installed"), tarball, "esbuild@0.28.2")


@pytest.fixture
def server(local: Local, tmp_path: Path) -> Iterator[str]:
    yield from function(local, tmp_path, UPRES_ACCESS="open", UPRES_CORS_ORIGINS="*")


IN_NODE = """
import { readFileSync } from "node:fs";
import { Upres } from "upres";
import { Upres as Uploading } from "./node_modules/upres/uploading.js";
delete globalThis.EventSource; // newer versions of Node.js may have it
const [address, photo] = process.argv.slice(1);
const bytes = readFileSync(photo);
const upres = new Upres(address);
const types = [];
const job = await upres.submit(new Blob([bytes]), { factor: 2 });
const { width } = await upres.subscribe(job, (event, id) => types.push(event.type + id));
let sent = 0;
const large = new Blob([bytes, new Uint8Array(40_000)]);
const onUpload = (now) => (sent = now);
const other = await upres.subscribe(await new Uploading(address).submit(large, { factor: 2, onUpload }));
let missing, relative;
try { new Upres(); } catch (error) { missing = error.message; }
try { new Upres("upres.example.org"); } catch (error) { relative = error.message; }
const key = await new Upres(address, { key: "“upres_x”" }).models().catch((error) => [error.code, error.message]);
const same = sent === large.size;
console.log(JSON.stringify({ width, last: types.at(-1), other: other.width, same, missing, relative, key }));
"""


def test_node_without_eventsource_submits_uploads_and_polls(server: str, installed: Path, png: bytes) -> None:
    """Files above 0.7 MB are uploaded to the store; the test lowers this limit to 4 kB."""
    (installed / "cat.png").write_bytes(png)
    library = installed / "node_modules" / "upres"
    (library / "uploading.js").write_text((library / "upres.js").read_text().replace("700_000", "4_000"))
    answer = json.loads(output(installed, "node", "--input-type=module", "--eval", IN_NODE, server, "cat.png"))
    assert (answer["width"], answer["last"], answer["other"], answer["same"]) == (128, "succeeded", 128, True)
    assert answer["missing"] == MISSING
    assert answer["relative"] == '"upres.example.org" is not the address of a server: begin it with https://'
    assert answer["key"][0] == "unauthorized"
    assert "quotation mark" in answer["key"][1]


def test_a_bundle_for_a_classic_script_asks_for_the_address_and_works_with_it(
    visit: Visit, server: str, installed: Path, png: bytes
) -> None:
    (installed / "entry.js").write_text('export * from "upres";')
    options = ("--bundle", "--format=iife", "--global-name=library", "--log-level=error", "--outfile=classic.js")
    output(installed, "node_modules/.bin/esbuild", "entry.js", *options)
    page = b'<!doctype html><title>classic</title><script src="/classic.js"></script>'
    script = """async ([server, bytes]) => {
        let missing;
        try { new library.Upres(); } catch (error) { missing = error.message; }
        const upres = new library.Upres(server);
        const job = await upres.submit(new Blob([new Uint8Array(bytes)]), { factor: 2 });
        return [missing, (await upres.subscribe(job)).width];
    }"""
    with http_server(served({"/": page, "/classic.js": (installed / "classic.js").read_bytes()})) as address:
        visit.page.goto(address)
        assert visit.page.evaluate(script, [server, list(png)]) == [MISSING, 128]
