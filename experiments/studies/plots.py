"""Plots of the studies, as PNG."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


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
    """Panels side by side: (title, y label, name -> (x, y)); `log` scales of y, one a panel."""
    plt = pyplot()
    figure, axes = plt.subplots(
        1, len(panels), figsize=(5.2 * len(panels), 3.8), squeeze=False, layout="constrained"
    )
    for axis, (title, y_label, lines), logarithmic in zip(axes[0], panels, log, strict=True):
        for name, (x, y) in lines.items():
            axis.plot(x, y, marker="o" if len(x) < 20 else None, markersize=3, label=name)
        axis.set(title=title, xlabel=x_label, ylabel=y_label)
        if logarithmic:
            axis.set_yscale("symlog", linthresh=1e-4)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=7)
    figure.savefig(path, dpi=110)
    plt.close(figure)
