"""Plots of the studies, as PNG."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_COLUMNS = 3


def pyplot() -> Any:
    """matplotlib's pyplot, drawing to files.

    Raises:
      ModuleNotFoundError: it is not installed; says how it is.
    """
    try:
        import matplotlib
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "the plots need matplotlib: pip install 'geojax[viz]', or --plots=false for the table"
        ) from error
    matplotlib.use("Agg")
    import matplotlib.pyplot

    return matplotlib.pyplot


def draw_lines(
    path: Path,
    panels: Sequence[tuple[str, str, Mapping[str, tuple[Sequence[float], Sequence[float]]]]],
    x_label: str,
    log: Sequence[bool],
) -> None:
    """Panels in rows of three: (title, y label, name -> (x, y)); `log` scales of y, one a panel."""
    plt = pyplot()
    columns = min(len(panels), _COLUMNS)
    rows = -(-len(panels) // columns)
    size = (4.6 * columns + 2.2, 3.6 * rows)
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
    for axis, (title, y_label, lines), logarithmic in zip(axes.flat, panels, log, strict=False):
        for i, (name, (x, y)) in enumerate(lines.items()):
            # Ten colours, then they come again, dashed.
            style = {"color": f"C{i % 10}", "linestyle": "-" if i < 10 else "--"}
            axis.plot(x, y, marker="o" if len(x) < 20 else None, markersize=3, label=name, **style)
        axis.set(title=title, xlabel=x_label, ylabel=y_label)
        if logarithmic:
            axis.set_yscale("symlog", linthresh=1e-4)
        axis.grid(alpha=0.3)
    for axis in axes.flat[len(panels) :]:
        axis.set_axis_off()
    # The lines of all panels have the same names.
    figure.legend(*axes.flat[0].get_legend_handles_labels(), loc="outside right upper", fontsize=8)
    figure.savefig(path, dpi=80)
    plt.close(figure)
