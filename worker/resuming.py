"""Continues the enlargement of a job where an earlier attempt was, and keeps checkpoints for the next one."""

from collections.abc import Iterator

from upres.worker.checkpoints import LONG_SECONDS, Checkpoints
from upres.worker.engine.engine import OnPiece
from upres.worker.enlarging import Enlargement
from upres.worker.report import Report
from upres.worker.samples import Samples


def resumed(
    enlargement: Enlargement, report: Report, checkpoints: Checkpoints, on_piece: OnPiece | None
) -> Iterator[Samples]:
    """Yield bands of rows: first the checkpoints of earlier attempts, then new ones, with checkpoints if it is long."""
    for band in checkpoints.load(enlargement.kind_at):
        if on_piece and checkpoints.rows <= enlargement.tops[1]:
            on_piece(checkpoints.rows - len(band), 0, band)
        yield band
    first_row = row = checkpoints.rows
    done, total = enlargement.progress_at(first_row)
    if done:
        report.resuming(done, total)
    if first_row == enlargement.tops[-1]:
        return
    for band in enlargement.bands(report.tile, report.frame, first_row, on_piece):
        if row == checkpoints.rows and (row or report.expected_seconds > LONG_SECONDS):
            checkpoints.keep(band)
        row += len(band)
        yield band
