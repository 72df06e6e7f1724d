"""A portrait: how a pipeline shows itself, as the code that makes it and as a card of blocks, columns and workers.

It knows words and HTML without scripts or links; it computes nothing.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from html import escape
from textwrap import dedent
from typing import TYPE_CHECKING, Any

from h3lab import brief
from h3lab.preparing import chain

if TYPE_CHECKING:
    from h3lab.pipeline import Pipeline
    from h3lab.preprocessor import Preprocessor

WIDTH = 100
_STYLE = (
    "<style>.h3-pipeline{display:inline-grid;grid-template-columns:max-content auto;gap:.35em 1.2em;max-width:100%;"
    "font:13px/1.5 system-ui,sans-serif;border-left:3px solid var(--h3-accent,#0072B2);padding:.2em 0 .2em .9em}"
    "[data-jp-theme-light=false] .h3-pipeline{--h3-accent:#56B4E9}.h3-pipeline>b{font-weight:600;max-width:20em;"
    "overflow:hidden;text-overflow:ellipsis}.h3-pipeline>span{overflow-wrap:anywhere}"
    ".h3-pipeline code{font-size:12px}.h3-pipeline>.h3-wide{grid-column:1/-1;width:0;min-width:100%}"
    ".h3-pipeline small,.h3-pipeline>.h3-wide{opacity:.75}</style>"
)


def block_text(block: Preprocessor) -> tuple[str, str]:
    """A Preprocessor as code, and a remark on it (or nothing)."""
    columns = block.columns if isinstance(block.columns, str) else list(block.columns)
    parts = [repr(block.name), repr(columns), *map(one_line, block.workers)]
    if block.source is not None:
        parts.append(f"source={block.source!r}")
    return f"Preprocessor({', '.join(parts)})", clones(block)


def clones(block: Preprocessor) -> str:
    """A remark where a worker is cloned for each column of a list, else nothing."""
    if block.workers and len(block.names) > 1 and chain.takes_text(block.workers[0]):
        return f"{chain.name_of(block.workers[0])}: one for each column"
    return ""


def one_line(worker: Any) -> str:
    """A worker as code in one line."""
    return " ".join(repr(worker).split())


def settings(pipeline: Pipeline) -> list[str]:
    """The arguments that differ from their defaults, as code."""
    defaults = {"label": None, "task": None, "weight": None, "join": "concat", "dtype": None, "seed": 0}
    given = {name: getattr(pipeline, name) for name in defaults}
    return [f"{name}={value!r}" for name, value in given.items() if value != defaults[name]]


def text(pipeline: Pipeline) -> str:
    """The code that makes the pipeline; what it has learned stands in a comment."""
    lines = ["Pipeline("]
    for block in pipeline.preprocessors:
        lines += _remarked(block)
    if given := settings(pipeline):
        lines.append(f"    {', '.join(given)},")
    lines[-1] = lines[-1].removesuffix(",")
    lines.append(")" + (f"  # fitted: {pipeline.spec}" if pipeline.fitted else ""))
    return "\n".join(map(brief.cut, lines))


def block_lines(block: Preprocessor) -> str:
    """A Preprocessor as code, in lines that fit, with a remark on it."""
    return "\n".join(map(brief.cut, dedent("\n".join(_remarked(block))).removesuffix(",").splitlines()))


def _remarked(block: Preprocessor) -> list[str]:
    """A Preprocessor as indented code, and the remark on it: behind it where it fits, else above."""
    *above, last = _called(block, "")
    remark = f"  # {told}" if (told := clones(block)) else ""
    if len(last + remark) <= brief.LINE:
        return [*above, last + remark]
    return [f"  {remark}", *above, last]


def program(pipeline: Pipeline) -> str:
    """The same as lines to paste into a cell: imports, remarks as comments, and ``pipeline = h3.Pipeline(...)``."""
    remarks = pipeline._remarks
    lines = [f"# {line}" for line in remarks.get("head", ())]
    lines += ["import h3lab as h3", *_imports(pipeline), "", "pipeline = h3.Pipeline("]
    for block in pipeline.preprocessors:
        lines += [f"    # {line}" for line in remarks.get(block.name, ())]
        told = clones(block)
        lines += [*_called(block), *([f"    # {told}"] if told else [])]
    if given := settings(pipeline):
        lines.append(f"    {', '.join(given)},")
    lines.append(")" + (f"  # fitted: {pipeline.spec}" if pipeline.fitted else ""))
    return "\n".join([*lines, *(f"# {line}" for line in remarks.get("foot", ()))])


def _called(block: Preprocessor, face: str = "h3.") -> list[str]:
    """A Preprocessor as code in lines that fit: columns are wrapped, workers have lines of their own."""
    whole = f"    {face}{block_text(block)[0]},"
    if len(whole) <= WIDTH:
        return [whole]
    columns = [f"{block.columns!r},"]
    if not isinstance(block.columns, str):
        wrapped = list(_wrapped([repr(name) for name in block.names]))
        columns = ["[", *(f"    {line}" for line in wrapped), "],"] if len(wrapped) > 1 else [f"[{wrapped[0][:-1]}],"]
    lines = [f"{block.name!r},", *columns, *(f"{one_line(worker)}," for worker in block.workers)]
    lines += [f"source={block.source!r},"] if block.source else []
    return [f"    {face}Preprocessor(", *(f"        {line}" for line in lines), "    ),"]


def _wrapped(items: Sequence[str]) -> Iterator[str]:
    line = ""
    for item in items:
        if line and len(line) + len(item) > WIDTH - 16:
            yield line.rstrip()
            line = ""
        line += f"{item}, "
    yield line.rstrip()


def _imports(pipeline: Pipeline) -> list[str]:
    """One line a module, for the workers and the estimators inside them. What a notebook defined is there already."""
    found: dict[str, set[str]] = {}
    for block in pipeline.preprocessors:
        for worker in block.workers:
            inner = worker.get_params(deep=True).values() if hasattr(worker, "get_params") else ()
            for one in (worker, *(value for value in inner if hasattr(value, "get_params"))):
                if type(one).__module__ != "__main__":
                    found.setdefault(_public(type(one)), set()).add(type(one).__name__)
    return [f"from {module} import {', '.join(sorted(names))}" for module, names in sorted(found.items())]


def _public(kind: type) -> str:
    """The module that users import a class from: ``sklearn.preprocessing``, where it is in ``._data``."""
    module = kind.__module__.partition("._")[0]
    return module if getattr(importlib.import_module(module), kind.__name__, None) is kind else kind.__module__


def html(pipeline: Pipeline) -> str:
    """A card: each block with its columns, and below them its workers."""
    cells = []
    for block in pipeline.preprocessors:
        columns = ", ".join(block.names[:8]) + (f", … ({len(block.names)})" if len(block.names) > 8 else "")
        if block.source is not None:
            columns += f" of {block.source}"
        workers = " → ".join(f"<code>{escape(one_line(worker))}</code>" for worker in block.workers)
        remark = clones(block)
        cells.append(
            f"<b>{escape(block.name)}</b><span>{escape(columns)}<br>{workers or '<small>as they are</small>'}"
            + (f" <small>{escape(remark)}</small>" if remark else "")
            + "</span>"
        )
    about = [escape(given) for given in settings(pipeline)]
    about.append(f"fitted: {escape(str(pipeline.spec))}" if pipeline.fitted else "not fitted yet")
    cells.append(f'<span class="h3-wide">{" · ".join(about)}</span>')
    return f'{_STYLE}<div class="h3-pipeline">{"".join(cells)}</div>'
