"""From a file of Project Gutenberg to the bare text of the book."""

import re

from common.data.registry import Cleaning


def clean(raw: bytes, cleaning: Cleaning) -> bytes:
    """Keep the listed lines, without the project's header, footer and notes; never more than two empty lines in a row.

    The result is verified by its sha256, and so is `raw` before: the line numbers hold for exactly one version of the file.

    Args:
        raw: the file as downloaded, UTF-8, any line ending.
        cleaning: the lines to keep and the heading to put before them.

    Returns:
        The text in UTF-8 with LF line endings, ending with one.
    """
    lines = raw.decode("utf-8").replace("\r\n", "\n").split("\n")
    parts = ["\n".join(lines[first - 1 : last]).strip("\n") for first, last in cleaning.lines]
    if cleaning.heading is not None:
        parts.insert(0, cleaning.heading)
    text = "\n\n\n".join(parts) + "\n"
    return re.sub(r"\n{4,}", "\n\n\n", text).encode("utf-8")
