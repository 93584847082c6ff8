"""A table of figures on the screen."""

from collections.abc import Sequence


def format_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their widest cell, the first to the left and the others to the right.

    Raises:
      ValueError: a row of another length than the header.
    """
    if wrong := [row for row in rows if len(row) != len(header)]:
        raise ValueError(f"expected {len(header)} cells a row, got {wrong[0]}")
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    lines = []
    for row in (header, ["-" * width for width in widths], *rows):
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def number(value: float | None, digits: int = 3) -> str:
    """A figure, or "-" where there is none."""
    return "-" if value is None else f"{value:.{digits}f}"
