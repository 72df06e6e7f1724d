"""The curves as Bokeh documents: two figures over one step axis, without data, that a page fills and keeps filled.

It knows names and looks. The names are the contract with ``static/plot.js``: sources ``raw smooth train held past marks
newest single`` and ``run0`` ... , each prefixed by the figure, ``left`` or ``right``. Colours of text and grid are the
page's.
"""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from h3lab.errors import MissingExtra
from h3lab.home import read_json, room, write_json

#: Okabe and Ito's colours, which colour-blind people can tell apart: on a light and on a dark ground.
TRAIN = ("#0072B2", "#56B4E9")
HELD_OUT = ("#D55E00", "#E69F00")
MARK = "#CC79A7"
GOOD = ("#009E73", "#2fc79a")
GREY = "#8b929a"
#: For several runs in one figure.
RUNS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8b929a", "#a37c00")

HEIGHT = 250


@cache
def documents() -> dict[str, Any]:
    """``linear`` and ``log`` → the document for that kind of value axis as JSON text, with the ids of its two roots.

    Bokeh's import and the making take a second, and several beside a cell that computes, so the result is kept.
    """
    source = Path(__file__).read_bytes() + bokeh_version().encode()
    path = room("cache") / f"curves-{hashlib.sha256(source).hexdigest()[:16]}.json"
    made = read_json(path)
    if made is None:
        made = {kind: _document(kind) for kind in ("linear", "log")}
        write_json(path, made)
    return dict(made)


def bokeh_version() -> str:
    """Of the installed package, which BokehJS has too."""
    return version("bokeh")


def library() -> bytes:
    """BokehJS, found without importing Bokeh."""
    spec = find_spec("bokeh")
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtra("Bokeh is not installed. Install it with: pip install bokeh")
    path = Path(spec.submodule_search_locations[0]) / "server" / "static" / "js" / "bokeh.min.js"
    return path.read_bytes()


def _document(kind: str) -> dict[str, Any]:
    from bokeh.core.json_encoder import serialize_json
    from bokeh.document import Document
    from bokeh.models import Range1d

    document = Document()
    steps = Range1d(0, 1, name="steps")
    figures = [_figure(side, steps, kind) for side in ("left", "right")]
    for figure in figures:
        document.add_root(figure)
    return {"roots": [figure.id for figure in figures], "document": serialize_json(document.to_json())}


def _figure(side: str, steps: Any, kind: str) -> Any:
    from bokeh.models import BoxZoomTool, LinearScale, Range1d, WheelZoomTool
    from bokeh.plotting import figure

    plot = figure(
        name=side,
        height=HEIGHT,
        sizing_mode="stretch_width",
        x_range=steps,
        y_range=Range1d(0.1, 1, name=f"{side}.values"),
        y_axis_type=kind,
        toolbar_location=None,
        # A wheel without a key scrolls the notebook.
        tools=[BoxZoomTool(dimensions="width"), WheelZoomTool(dimensions="width", modifiers="ctrl")],
        border_fill_color=None,
        background_fill_color=None,
        outline_line_color=None,
        min_border_left=46,
        min_border_right=12,
        min_border_top=6,
        output_backend="canvas",
    )
    # Marks stand at a height of the figure, whatever the values are.
    plot.extra_y_ranges = {"unit": Range1d(0, 1)}
    plot.extra_y_scales = {"unit": LinearScale()}
    _axes(plot)
    _lines(plot, side)
    return plot


def _axes(plot: Any) -> None:
    from bokeh.models import NumeralTickFormatter

    plot.xaxis.formatter = NumeralTickFormatter(format="0,0")
    plot.xgrid.grid_line_color = None
    plot.xaxis.ticker.min_interval = 1  # there is no half a step
    plot.xaxis.ticker.desired_num_ticks = plot.yaxis.ticker.desired_num_ticks = 5
    for axis in (plot.xaxis, plot.yaxis):
        axis.axis_line_color = axis.major_tick_line_color = axis.minor_tick_line_color = None
        axis.major_label_text_font_size = "11px"
        axis.major_label_standoff = 4


def _lines(plot: Any, side: str) -> None:
    def line(name: str, color: str, width: float, alpha: float = 1.0, dash: str = "solid") -> Any:
        return plot.line(
            "x", "y", source=_source(f"{side}.{name}"), name=f"{side}.{name}.line",
            line_color=color, line_width=width, line_alpha=alpha, line_dash=dash, line_join="round",
        )  # fmt: skip

    line("past", GREY, 1.2, 0.8, "dashed")
    line("raw", TRAIN[0], 1.0, 0.28)
    shown = [line("smooth", TRAIN[0], 2.0), line("held", HELD_OUT[0], 2.0)]
    shown += [line(f"run{index}", color, 2.0) for index, color in enumerate(RUNS)]
    plot.scatter("x", "y", source=_source(f"{side}.newest"), size=7, color=HELD_OUT[0], name=f"{side}.newest.dot")
    # A curve of one point is no line.
    single = _source(f"{side}.single", ("x", "y", "color"))
    plot.scatter("x", "y", source=single, size=7, color="color")
    _marks(plot, side)
    _hover(plot, shown)


def _marks(plot: Any, side: str) -> None:
    source = _source(f"{side}.marks", ("x", "color", "text", "shape"))
    if side == "left":
        plot.segment(
            "x", 0, "x", 0.97, source=source, y_range_name="unit", line_color="color", line_dash="dotted",
            line_width=1, line_alpha=0.8,
        )  # fmt: skip
        plot.scatter("x", 0.97, source=source, y_range_name="unit", size=8, color="color", marker="shape")
        plot.text(
            "x", 0.97, text="text", source=source, y_range_name="unit", x_offset=8, y_offset=4,
            text_font_size="11px", name="left.marks.text",
        )  # fmt: skip


def _hover(plot: Any, renderers: list[Any]) -> None:
    from bokeh.models import HoverTool

    tips = [("step", "$snap_x{0,0}"), ("", "$snap_y{0.0000a}")]
    plot.add_tools(HoverTool(renderers=renderers, tooltips=tips, mode="vline", line_policy="nearest"))


def _source(name: str, columns: tuple[str, ...] = ("x", "y")) -> Any:
    from bokeh.models import ColumnDataSource

    return ColumnDataSource({column: [] for column in columns}, name=name)
