"""The section of RESULTS.md that `make gpu` writes, and replaces at the next run."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks.gpu.parts import PARTS
from benchmarks.gpu.runner import Line, Ran

HEADING = "## On a GPU: `make gpu`"
IMITATED = "## `make gpu`, imitated on a CPU: no figure here is a GPU's"


def text(ran: Sequence[Ran], device: str, day: str, imitated: bool) -> str:
    """Return the section: what passed, the versions, the figures, and what was wrong or not measured."""
    about = {part.name: part.about for part in PARTS}
    lines = [(one.name, line) for one in ran for line in one.lines]
    what = f"{'Imitated' if imitated else 'Measured'} on {day}; device: {device}. A ratio is that to the named peer."
    outcomes = [(f"{one.name}: {about[one.name]}", one.outcome, f"{one.seconds:.0f} s") for one in ran]
    facts = [(line["fact"], line["value"]) for _, line in lines if "fact" in line]
    wrong = [f"- {name}: {line[kind]}" for name, line in lines for kind in ("wrong", "missing") if kind in line]
    tables = [
        _table(("part", "outcome", "time"), outcomes),
        _table(("what", "is"), facts),
        _table(("figure", "value", "peer", "ratio"), [_figure(line) for _, line in lines if "name" in line]),
    ]
    blocks = [IMITATED if imitated else HEADING, what, *filter(None, tables)]
    if wrong:
        blocks.append("Wrong, or not measured:\n\n" + "\n".join(wrong))
    return "\n\n".join(blocks) + "\n"


def _figure(line: Line) -> tuple[str, str, str, str]:
    return line["name"], f"{line['value']:g} {line['unit']}", f"{line['peer']}: {line['peer_value']:g}", line["ratio"]


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table in Markdown; empty without rows."""
    cells = [[str(cell).replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    lines = [f"| {' | '.join(row)} |" for row in (list(head), *cells)]
    return "\n".join([lines[0], f"|{'---|' * len(head)}", *lines[1:]]) if cells else ""


def put(file: Path, section: str) -> None:
    """Write a section into a Markdown file, in the place of the one with its heading, else at the end. Raises OSError.

    A section ends at the next heading of the first or second level. A file that is not there is made.
    """
    heading = section.splitlines()[0]
    old = file.read_text() if file.exists() else ""
    before, found, rest = f"\n{old}".partition(f"\n{heading}\n")
    after = "\n".join(_from_next_heading(rest.splitlines()))
    whole = [before.strip("\n"), section.strip("\n"), after.strip("\n")] if found else [old.strip("\n"), section]
    file.write_text("\n\n".join(block.strip("\n") for block in whole if block.strip("\n")) + "\n")


def _from_next_heading(lines: Sequence[str]) -> Sequence[str]:
    first = next((n for n, line in enumerate(lines) if line.startswith(("# ", "## "))), len(lines))
    return lines[first:]
