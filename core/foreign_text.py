"""Text from outside: what servers, clients and authors of models say, before it is stored, logged or shown."""

MAX_SENTENCE = 500
"""Longest message in characters that an event or an answer holds."""


def printable(text: str, most: int | None = MAX_SENTENCE, lines: bool = False) -> str:
    """Return the text with each non-printable character replaced by �, and cut to `most` characters (None: no limit).

    So it cannot control a terminal, begin a new line in a log, or fill a store. Non-printable are control characters,
    separators of lines and marks of the direction of writing (Unicode's C and Z, without the space). With `lines` the
    text may have several lines.
    """
    if most is not None and len(text) > most:
        text = text[: most - 1] + "…"
    return "".join(c if c.isprintable() or (lines and c == "\n") else "�" for c in text)
