"""The static picture of a run, for where nothing is alive: GitHub, nbconvert, papermill, a notebook without its kernel.

It knows curves and headlines, and gives the bytes of a PNG. PNG and not SVG, because JupyterLab shows no SVG of a
notebook that it does not trust.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from h3lab.ui.columns import Columns, binned, extremes, smoothed
from h3lab.ui.curves import GOOD, GREY, HELD_OUT, MARK, RUNS, TRAIN

INK, QUIET, LINE = "#1c2330", "#5b6675", "#e3e7ec"
PILLS = {"failed": "#b3261e", "lost": "#a86400", "paused": "#a86400", "queued": QUIET, "starting": QUIET}

# Matplotlib keeps fonts and parsers in module globals that two threads must not touch at a time.
_lock = threading.Lock()


def png(head: Mapping[str, Any], columns: Columns, marks: Sequence[Mapping[str, Any]]) -> bytes:
    """The card of a run as it is now. The first call in a process imports Matplotlib, which takes most of a second."""
    with _lock:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        metric = (head["metric"] or "").removeprefix("val_")
        figure = Figure(figsize=(9.6, 3.3), dpi=100, facecolor="white")
        FigureCanvasAgg(figure)
        _headline(figure, head)
        names = list(dict.fromkeys(filter(None, [*bases([columns])[:1], metric, *bases([columns])])))[:2]
        widths = [3, 2][: len(names)] or [1]
        top = 0.7 if head["cause"] else 0.76
        grid = figure.add_gridspec(1, len(widths), width_ratios=widths, left=0.05, right=0.985, top=top, bottom=0.09)
        for index, name in enumerate(names):
            axes = figure.add_subplot(grid[index])
            _curves(axes, name, columns)
            if index == 0:
                _marks(axes, marks)
        if head["cause"]:
            figure.text(0.018, 0.815, _shortened(head["cause"], 130), color=PILLS["failed"], size=9, va="center")
        return _compressed(figure)


def overlay(heads: Sequence[Mapping[str, Any]], columns: Sequence[Columns]) -> bytes:
    """Several runs in one picture, a colour each."""
    with _lock:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(figsize=(9.6, 3.3), dpi=100, facecolor="white")
        FigureCanvasAgg(figure)
        names = bases(columns) or ["loss"]
        widths = [3, 2][: len(names)]
        grid = figure.add_gridspec(1, len(names), width_ratios=widths, left=0.05, right=0.985, top=0.8, bottom=0.09)
        for index, name in enumerate(names):
            axes = figure.add_subplot(grid[index])
            kind = compared_kind(name, columns)
            for number, (head, of_run) in enumerate(zip(heads, columns)):
                steps, values = line_of(name, of_run, kind)
                color, dot = RUNS[number % len(RUNS)], "o" if len(steps) == 1 else None
                axes.plot(steps, values, color=color, linewidth=1.6, marker=dot, markersize=4, label=_name(head))
            _dress(axes, f"{name}, {kind}")
        figure.legend(*axes.get_legend_handles_labels(), loc="upper left", ncols=4, frameon=False, fontsize=9)
        return _compressed(figure)


def bases(columns: Sequence[Columns]) -> list[str]:
    """What the two figures of several runs show: a loss, and what else says how good they are."""
    names = list(dict.fromkeys(name.removeprefix("val_") for of_run in columns for name in of_run))
    losses, others = [n for n in names if n.endswith("loss")], [n for n in names if not n.endswith("loss")]
    return [*losses[:1], *others, *losses[1:]][:2]


def compared_kind(name: str, columns: Sequence[Columns]) -> str:
    """``validation`` or ``train``: by what several runs are compared. Validation where each has it, because the losses
    of a student that is taught and of one that is alone differ in kind; a metric that is no loss, where any has it."""
    held = [f"val_{name}" in of_run for of_run in columns]
    return "validation" if (all(held) if name.endswith("loss") else any(held)) else "train"


def line_of(name: str, columns: Columns, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """The line of a metric of a run; where it lacks the kind asked for, the other one. Training is smoothed."""
    order = [f"val_{name}", name] if kind == "validation" else [name, f"val_{name}"]
    found = next((each for each in order if each in columns), None)
    if found is None:
        return np.array([]), np.array([])
    steps, values = binned(columns[found])
    return steps, smoothed(values, 0.8) if found == name else values


def _name(head: Mapping[str, Any]) -> str:
    return f"{head['name']}/{head['number']}" if head["number"] else str(head["name"])


def _headline(figure: Any, head: Mapping[str, Any]) -> None:
    facts = [f"epoch {head['epoch']}/{head['epochs']}" if head["step"] and head["epochs"] else ""]
    facts += [f"step {head['step']:,}" if head["step"] else ""]
    for label, value in ((head["loss_name"], head["loss"]), (head["metric"], head["value"])):
        facts += [f"{label} {value:.4g}" if isinstance(value, float) else f"{label} {value}" if value else ""]
    left = figure.text(0.018, 0.93, _name(head), size=12, weight="bold", color=INK, va="center")
    figure.draw_without_rendering()
    place = left.get_window_extent().x1 / figure.bbox.width + 0.014
    state = figure.text(place, 0.93, head["state"], size=9.5, weight="bold", va="center")
    state.set_color(PILLS.get(head["state"], GOOD[0]))
    place = state.get_window_extent().x1 / figure.bbox.width + 0.018
    figure.text(place, 0.93, "    ".join(filter(None, facts)), size=9.5, color=QUIET, va="center")
    figure.text(0.985, 0.93, head["place"], size=9.5, color=QUIET, va="center", ha="right")
    done = min(1.0, head["step"] / head["total"]) if head["total"] else 0.0
    for width, color in ((1.0, LINE), (done, PILLS.get(head["state"], GOOD[0]))):
        figure.add_artist(_rectangle(width, color, figure))


def _rectangle(width: float, color: str, figure: Any) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((0, 0.862), width, 0.009, color=color, transform=figure.transFigure, linewidth=0)


def _curves(axes: Any, name: str, columns: Columns) -> None:
    seen = []
    if name in columns:
        axes.plot(*extremes(columns[name]), color=TRAIN[0], alpha=0.28, linewidth=0.7)
        steps, values = binned(columns[name])
        seen.append(line := smoothed(values, 0.8))
        dot = "o" if len(steps) == 1 else None
        axes.plot(steps, line, color=TRAIN[0], linewidth=1.6, marker=dot, markersize=4, label="train")
    if f"val_{name}" in columns:
        steps, values = binned(columns[f"val_{name}"])
        seen.append(values)
        axes.plot(steps, values, color=HELD_OUT[0], linewidth=1.6, label="validation")
        axes.plot(steps[-1:], values[-1:], "o", color=HELD_OUT[0], markersize=4)
    _dress(axes, name)
    known = np.concatenate(seen)[np.isfinite(np.concatenate(seen))] if seen else np.array([])
    if known.size:
        margin = 0.08 * (known.max() - known.min()) or abs(known.max()) * 0.1 or 1.0
        axes.set_ylim(known.min() - margin, known.max() + margin)
    if len(seen) > 1:
        axes.legend(frameon=False, fontsize=8, labelcolor=QUIET, loc="lower right", ncols=2, bbox_to_anchor=(1, 0.98))


def _dress(axes: Any, name: str) -> None:
    axes.set_title(name, loc="left", size=9.5, color=QUIET, pad=5)
    axes.grid(axis="y", color=LINE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, labelsize=8, labelcolor=QUIET)
    axes.spines[:].set_visible(False)


def _marks(axes: Any, marks: Sequence[Mapping[str, Any]]) -> None:
    colors = {"set": MARK, "snapshot": GOOD[0], "attempt": GREY}
    for mark in marks:
        color = colors[mark["kind"]]
        axes.axvline(mark["step"], color=color, linewidth=0.9, linestyle=":")
        if mark["text"]:
            axes.annotate(
                mark["text"], (mark["step"], 0.98), xycoords=("data", "axes fraction"), xytext=(4, 0),
                textcoords="offset points", size=7.5, color=INK, va="top",
            )  # fmt: skip


def _shortened(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def _compressed(figure: Any) -> bytes:
    # A palette makes the file, which is stored in the notebook, a third as large. By an octree, because the median cut
    # loses the colour of a mark, which has few pixels.
    from PIL import Image

    figure.canvas.draw()
    image = Image.fromarray(np.asarray(figure.canvas.buffer_rgba())[..., :3])
    file = io.BytesIO()
    image.quantize(256, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(file, "PNG", optimize=True)
    return file.getvalue()
