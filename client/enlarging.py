"""The implementation of `upres PHOTO…`: from the options to the exit code."""

import json
import os
import sqlite3
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import cast

from upres.client import frame_count
from upres.client.atomic_file import delete_unfinished
from upres.client.batch import UNAVAILABLE, Backend, Batch, is_fatal
from upres.client.command_options import CommandOptions, without_defaults
from upres.client.display import Display
from upres.client.image_size import read_size
from upres.client.known_results import KnownResults
from upres.client.ledger import NAME, Ledger
from upres.client.output_paths import OutputPaths, check_folder
from upres.client.protocol import EstimateOptions
from upres.client.remote import Remote
from upres.client.sdk import Client
from upres.client.signals import end_by_signal
from upres.client.sources import Source
from upres.client.text import sentence, shown, write_line
from upres.core.api import Estimate
from upres.core.errors import UnsupportedImage, UpresError

RETRIES = 12
"""Retries of each request: together about a minute, enough for a server that is being restarted."""
CANCEL_SECONDS = 2.0
"""Timeout in seconds of requests that cancel jobs after Ctrl-C."""
MAX_LOCAL = 2
"""Images at once with --local: one on the device while another is read or written. More would only use memory."""
FAILED, UNREACHABLE = 1, 3


def run(wanted: CommandOptions, backend: Backend | None) -> int:
    """Enlarge all images, by default on the server; returns the exit code."""
    begin = time.monotonic()
    with ExitStack() as stack:
        try:
            backend = backend or _remote(wanted, stack)
            check_folder(wanted.out or Path())
            ledger, known = stack.enter_context(_ledger(wanted.out)), stack.enter_context(KnownResults())
        except (UpresError, OSError, sqlite3.Error) as error:
            return _complain(error)
        total = wanted.count(known)
        display = stack.enter_context(Display(total, wanted.as_json))
        paths = OutputPaths(ledger, wanted.out or Path(), wanted.pattern, wanted.result_options, wanted.force)
        batch = Batch(backend, paths, display)
        try:
            batch.run(wanted.sources(known), min(wanted.at_once, MAX_LOCAL) if wanted.local else wanted.at_once)
        except KeyboardInterrupt as interrupt:
            display.close()
            _summarise(wanted, batch, time.monotonic() - begin, "interrupted")
            delete_unfinished()
            ledger.release_all()
            end_by_signal(interrupt)  # at once: threads still use what a normal exit would close
    _tell_left_out(known)
    if total != 1 or wanted.as_json:
        try:
            _summarise(wanted, batch, time.monotonic() - begin)
        except OSError as error:
            return _complain(batch.lost or error)
    if batch.lost:
        return _complain(batch.lost)
    return FAILED if batch.counts["failed"] else 0


def estimate(wanted: CommandOptions) -> int:
    """Print an estimate for each image; returns the exit code."""
    failed = False
    with ExitStack() as stack:
        try:
            client, known = stack.enter_context(_client(wanted)), stack.enter_context(KnownResults())
            for source in wanted.sources(known):
                try:
                    _tell(wanted, source, _estimate(wanted, client, source))
                except (UpresError, OSError) as error:
                    if is_fatal(error):
                        return _complain(error)
                    print(shown(f"{source.name}: {sentence(error)}", sys.stderr), file=sys.stderr)
                    failed = True
            _tell_left_out(known)
        except UpresError as error:
            return _complain(error)
    return FAILED if failed else 0


def _ledger(out: Path | None) -> Ledger:
    """The ledger of the results' folder. Raises OSError or sqlite3.Error for the folder of --out.

    Elsewhere nobody asked for a ledger, so a photo is enlarged without one too: for example where another user's is.
    """
    try:
        return Ledger(out or Path())
    except (OSError, sqlite3.Error) as error:
        if out:
            raise
        print(f"{NAME} cannot be used ({sentence(error)}): results of other commands are not known.", file=sys.stderr)
        return Ledger(None)


def _tell_left_out(known: KnownResults) -> None:
    if count := known.left_out:
        text = f"Results of upres among the photos, left out: {count}. To enlarge them again, name nothing else."
        print(text, file=sys.stderr)


def _client(wanted: CommandOptions) -> Client:
    """A client whose server answers. Raises ServerUnreachable or ClientSetupError."""
    client = Client(wanted.server, wanted.api_key, retries=RETRIES, verify=wanted.cacert or True)
    client.check()
    return client


def _remote(wanted: CommandOptions, stack: ExitStack) -> Remote:
    client = stack.enter_context(_client(wanted))
    cancel_client = Client(
        wanted.server, wanted.api_key, retries=0, timeout=CANCEL_SECONDS, verify=wanted.cacert or True
    )
    stack.enter_context(cancel_client)
    return Remote(client, cancel_client, wanted.size.factor, wanted.options)


def _estimate(wanted: CommandOptions, client: Client, source: Source) -> Estimate:
    source.check()
    if source.is_address:
        raise UnsupportedImage("The size of an image at a URL is not known before it is fetched; estimate a file.")
    frames = frame_count.count(source.image, wanted.output_format) if wanted.frames == "all" else 1
    counted = {"frame_count": frames} if frames > 1 else {}
    options = {"bytes": os.path.getsize(source.image), **counted, **without_defaults(wanted.enlargement)}
    width, height = read_size(source.image)
    return client.estimate(width, height, wanted.size.factor, **cast("EstimateOptions", options))


def _tell(wanted: CommandOptions, source: Source, found: Estimate) -> None:
    if wanted.as_json:
        write_line(json.dumps({"source": source.image, **found.model_dump(mode="json", exclude_none=True)}))
        return
    tiles = "1 tile" if found.tiles == 1 else f"{found.tiles} tiles"
    seconds = "duration not known yet" if found.seconds is None else f"about {found.seconds:.1f} s"
    waiting = f", after {found.waiting} others" if found.waiting else ""
    there = "" if found.slots else "; no worker is running now"
    what = f"{tiles}, {seconds}{waiting}{there}" if found.accepted else f"refused: {found.detail} ({found.code})"
    text = f"{source.name}: {found.width}×{found.height} by {found.model} {found.model_version}, {what}"
    write_line(shown(text, sys.stdout))


def _summarise(wanted: CommandOptions, batch: Batch, seconds: float, *first: str) -> None:
    counts = {status: batch.counts[status] for status in ("enlarged", "skipped", "failed")}
    if wanted.as_json:
        write_line(json.dumps({"summary": {**counts, "seconds": round(seconds, 3), "interrupted": bool(first)}}))
        return
    parts = [f"{count} {status}" for status, count in counts.items() if count or status == "enlarged"]
    pace = f" ({counts['enlarged'] / seconds:.1f} a second)" if counts["enlarged"] > 1 else ""
    then = "; the same command goes on from here" if first else ""
    print(f"{', '.join([*first, *parts])} in {seconds:.1f} s{pace}{then}", file=sys.stderr)


def _complain(error: Exception) -> int:
    print(shown(sentence(error), sys.stderr), file=sys.stderr)
    return UNREACHABLE if isinstance(error, UpresError) and error.status == UNAVAILABLE else FAILED
