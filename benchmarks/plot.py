"""Bar charts as small SVG files for the documentation."""

from collections.abc import Mapping
from html import escape

LEFT, RIGHT, BAR, GAP = 40, 440, 22, 8


def bars(title: str, values: Mapping[str, float]) -> str:
    """Horizontal bars with labels and values, as SVG; its colours are readable on light and on dark pages."""
    longest = max(values.values())
    rows = []
    for number, (label, value) in enumerate(values.items()):
        top = 36 + number * (BAR + GAP)
        end = LEFT + (RIGHT - LEFT) * value / longest
        rows.append(
            f'<text x="{LEFT - 8}" y="{top + 16}" text-anchor="end">{escape(label)}</text>'
            f'<rect x="{LEFT}" y="{top}" width="{end - LEFT:.0f}" height="{BAR}" rx="3" fill="#5b7cfa"/>'
            f'<text x="{end + 8:.0f}" y="{top + 16}">{value:.1f}</text>'
        )
    height = 36 + len(values) * (BAR + GAP)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 500 {height}" width="500" height="{height}"'
        f' font-family="system-ui, sans-serif" font-size="14" fill="#808590">'
        f'<text x="0" y="18" font-weight="600">{escape(title)}</text>{"".join(rows)}</svg>\n'
    )
