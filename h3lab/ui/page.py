"""A page of curves and tables that stands alone: one HTML file, BokehJS inside, nothing fetched from anywhere.

It knows headings, text, tables and runs; what they mean is the caller's affair.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from h3lab.home import replace_file
from h3lab.ui.columns import Columns, binned, extremes, smoothed
from h3lab.ui.curves import HELD_OUT, RUNS, TRAIN
from h3lab.ui.follower import Follower
from h3lab.ui.picture import bases, compared_kind, line_of

STYLE = """
body { color: #1c2330; font: 15px/1.6 system-ui, sans-serif; margin: 2.5em auto; max-width: 62em; padding: 0 1.5em; }
h1 { font-size: 1.7em; margin: 0 0 1em; } h2 { font-size: 1.15em; margin: 2.2em 0 .6em; }
p { max-width: 46em; white-space: pre-line; } .runs { color: #5b6675; font-size: .9em; white-space: pre-wrap; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th { color: #5b6675; font-weight: 600; text-align: left; }
th, td { border-bottom: 1px solid #e3e7ec; padding: .35em 1.4em .35em 0; } td.number, th.number { text-align: right; }
.figures { display: grid; gap: 1em; grid-template-columns: 3fr 2fr; } .figures > :only-child { grid-column: 1 / -1; }
"""


def write_page(path: Path | str, title: str, sections: Iterable[tuple[str, Any]]) -> Path:
    """Write an HTML page of ``(heading, content)`` sections, and return its path.

    Content is a text, a table (a DataFrame, or a list of dicts with the same keys), a run, or a list of runs, whose
    curves are drawn in one figure. The file is complete in itself and about 1.3 MB as soon as it has curves.
    """
    body: list[str] = []
    figures: list[Any] = []
    for heading, content in sections:
        body.append(f"<h2>{escape(heading)}</h2>" if heading else "")
        if isinstance(content, str):
            body.append(f"<p>{escape(content)}</p>")
        elif is_runs(content):
            html, drawn = _curves(list(content) if isinstance(content, Sequence) else [content], len(figures))
            body.append(html)
            figures += drawn
        else:
            body.append(_table(content))
    head = f'<meta charset="utf-8"><title>{escape(title)}</title><style>{STYLE}</style>'
    scripts, blocks = _bokeh(figures)
    text = "\n".join(body)
    for index, block in enumerate(blocks):
        text = text.replace(f"<!--figure {index}-->", block)
    page = (
        f"<!doctype html>\n<html><head>{head}</head>\n<body><h1>{escape(title)}</h1>\n{text}\n{scripts}</body></html>\n"
    )
    path = Path(path)
    replace_file(path, page.encode())
    return path


def is_runs(content: Any) -> bool:
    """Whether the content of a section is a run or a list of them."""
    items = content if isinstance(content, Sequence) and content else [content]
    return all(hasattr(item, "folder") for item in items)


def _table(content: Any) -> str:
    rows: list[Mapping[str, Any]] = content.to_dict("records") if hasattr(content, "to_dict") else list(content)
    if not rows:
        return "<p>no rows</p>"
    numeric = {name: all(isinstance(row[name], int | float) for row in rows) for name in rows[0]}
    kinds = {name: ' class="number"' if numeric[name] else "" for name in rows[0]}
    head = "".join(f"<th{kinds[name]}>{escape(str(name))}</th>" for name in rows[0])
    lines = ["".join(f"<td{kinds[name]}>{escape(_cell(row[name]))}</td>" for name in rows[0]) for row in rows]
    return f"<table><tr>{head}</tr>" + "".join(f"<tr>{cells}</tr>" for cells in lines) + "</table>"


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _curves(runs: list[Any], first: int) -> tuple[str, list[Any]]:
    followers = [Follower(run.folder) for run in runs]
    for follower in followers:
        follower.catch_up()
    lines = escape("\n".join(follower.line() for follower in followers))
    columns = [follower.columns for follower in followers]
    names = [run.name for run in runs]
    figures = [_figure(base, names, columns) for base in bases(columns)]
    places = "".join(f"<div><!--figure {first + index}--></div>" for index in range(len(figures)))
    return f'<div class="runs">{lines}</div><div class="figures">{places}</div>', figures


def _figure(base: str, names: list[str], columns: list[Columns]) -> Any:
    from bokeh.models import HoverTool
    from bokeh.plotting import figure

    tools = ["xbox_zoom", "reset", HoverTool(tooltips=[("step", "@x{0,0}"), (base, "@y{0.0000a}")])]
    plot = figure(title=base, height=300, sizing_mode="stretch_width", tools=tools, toolbar_location=None)
    plot.outline_line_color = plot.xgrid.grid_line_color = plot.xaxis.axis_line_color = None
    plot.yaxis.axis_line_color = plot.axis.major_tick_line_color = plot.axis.minor_tick_line_color = None
    plot.title.text_color, plot.title.text_font_style = "#5b6675", "normal"
    if len(columns) == 1:
        _one(plot, base, columns[0])
    else:
        kind = compared_kind(base, columns)
        plot.title.text = f"{base}, {kind}"
        for index, of_run in enumerate(columns):
            x, y = line_of(base, of_run, kind)
            if len(x) == 1:
                plot.scatter(x, y, color=RUNS[index % len(RUNS)], size=7, legend_label=names[index])
            plot.line(x, y, line_color=RUNS[index % len(RUNS)], line_width=2, legend_label=names[index])
    if plot.legend:
        plot.legend.location = "top_right" if base.endswith("loss") else "bottom_right"
        plot.legend.border_line_color = plot.legend.background_fill_color = None
        plot.legend.click_policy = "hide"
    return plot


def _one(plot: Any, base: str, columns: Columns) -> None:
    if base in columns:
        plot.line(*extremes(columns[base]), line_color=TRAIN[0], line_alpha=0.3)
        steps, values = binned(columns[base])
        plot.line(steps, smoothed(values, 0.8), line_color=TRAIN[0], line_width=2, legend_label="train")
    if f"val_{base}" in columns:
        plot.line(*binned(columns[f"val_{base}"]), line_color=HELD_OUT[0], line_width=2, legend_label="validation")


def _bokeh(figures: list[Any]) -> tuple[str, list[str]]:
    if not figures:
        return "", []
    from bokeh.embed import components
    from bokeh.resources import Resources

    script, blocks = components(figures)
    library = Resources(mode="inline", components=["bokeh"]).render_js()
    return library + script, list(blocks)
