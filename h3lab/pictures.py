"""Pictures: how sources, actors and labs show themselves, as text and as a card without scripts or links.

It knows words and HTML; whatever goes wrong while looking is shown in the picture, and never raised.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from h3lab import brief
from h3lab.errors import redacted

if TYPE_CHECKING:
    from h3lab.source import Source

#: Columns and classes beyond these are counted, not listed.
SHOWN = 12
_STYLE = (
    # Twice the class: JupyterLab's own rules for tables are as specific as once, and come later.
    "<style>.h3-data{display:inline-block;font:13px/1.5 system-ui,sans-serif;max-width:100%;"
    "border-left:3px solid var(--h3-accent,#0072B2);padding:.2em 0 .2em .9em;font-variant-numeric:tabular-nums}"
    "[data-jp-theme-light=false] .h3-data{--h3-accent:#56B4E9}.h3-data b{font-weight:600}.h3-data small{opacity:.75}"
    ".h3-data table{border-collapse:collapse;margin:.3em 0 0;font-size:12px;color:inherit}"
    ".h3-data code{font-size:12px;white-space:pre-wrap}.h3-data.h3-data.h3-data tr{background:none}"
    ".h3-data.h3-data th,.h3-data.h3-data td{padding:.1em .9em .1em 0;text-align:left;max-width:26em;overflow:hidden;"
    "text-overflow:ellipsis;white-space:nowrap;vertical-align:top;border:none}"
    ".h3-data.h3-data .h3-number{text-align:right}"
    ".h3-data .h3-bar{display:inline-block;height:.7em;background:var(--h3-accent,#0072B2);border-radius:1px}"
    ".h3-data .h3-bars{display:inline-block;width:290px;max-width:100%;margin:.5em 1.5em 0 0;vertical-align:top}"
    ".h3-data .h3-bars>div{display:flex;align-items:flex-end;justify-content:space-between;gap:1px}"
    ".h3-data .h3-axis{border-top:1px solid currentColor;font-size:11px;opacity:.75}.h3-data .h3-bars .h3-bar{flex:1}"
    "</style>"
)


def source_text(source: Source) -> str:
    """Title, columns with their types, and five rows."""
    lines = [" · ".join(filter(None, [f"Source: {attempt(lambda: source.title)}", attempt(source.size)]))]
    lines.append(attempt(lambda: "; ".join(source.notes)))
    lines.append(attempt(lambda: _columns(source)))
    lines.append(attempt(lambda: _rows(_frame(source))))
    return "\n".join(brief.cut(line) for text in lines for line in text.splitlines() if line)


def source_html(source: Source) -> str:
    """The same as a card."""
    more = attempt(lambda: " · ".join(filter(None, [source.size(), *source.notes])))
    head = f"<b>{escape(attempt(lambda: source.title))}</b> <small>{escape(more)}</small>"
    return card(head, attempt(lambda: _table(source), escape))


def attempt(look: Callable[[], str], words: Callable[[str], str] = str) -> str:
    try:
        return look()
    except Exception as error:
        return words(redacted(f"({type(error).__name__}: {error})"))


def _type(type_: Any) -> str:
    shape = getattr(type_, "shape", None)  # of tensors; what Arrow calls them fills a line
    return str(type_) if shape is None else f"{'×'.join(map(str, shape))} {type_.value_type}"


def _columns(source: Source) -> str:
    return brief.listed(f"{brief.line(field.name, brief.NAME - 12)}: {_type(field.type)}" for field in source.schema)


def _rows(frame: Any) -> str:
    """As many columns as fit the line, from the left."""
    frame = frame.rename(columns=lambda name: brief.line(name, brief.NAME))
    for columns in range(frame.shape[1], 0, -1):
        with np.errstate(over="ignore"):  # pandas asks of half floats whether they are above a million
            text: str = frame.iloc[:, :columns].to_string(max_colwidth=brief.NAME, index=False)
        if columns == 1 or len(text.partition("\n")[0]) <= brief.LINE:
            return text
    return ""


def _frame(source: Source) -> Any:
    table = source.first(5)
    return table.select(list(range(min(SHOWN, table.num_columns)))).to_pandas()


def _table(source: Source) -> str:
    frame, types = _frame(source), [_type(field.type) for field in source.schema]
    sides = [' class="h3-number"' if kind.kind in "iuf" else "" for kind in frame.dtypes]
    told = zip(frame, types, sides, strict=False)
    names = [f"<th{side}>{escape(short(name))}<br><small>{escape(type_)}</small></th>" for name, type_, side in told]
    if len(types) > len(names):
        names.append(f"<th><small>... {len(types)} columns</small></th>")
    rows = [
        "".join(f"<td{side}>{escape(short(value))}</td>" for value, side in zip(row, sides, strict=True))
        for row in frame.itertuples(index=False)
    ]
    return f"<table><tr>{''.join(names)}</tr>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>"


def short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 80 else text[:79] + "…"


def card(head: str, body: str) -> str:
    """A box with a title; both are HTML already."""
    return f'{_STYLE}<div class="h3-data">{head}{body}</div>'


def table_html(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of texts."""
    head = "".join(f"<th>{escape(each)}</th>" for each in heads)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


def learned(actor: Any) -> str:
    """``classification, 10 classes, 64 features, with a pipeline``, or ``not trained``."""
    spec = getattr(actor, "spec_", None)
    pipeline = getattr(actor, "pipeline_", None) or actor.pipeline
    return ("not trained" if spec is None else str(spec)) + ("" if pipeline is None else ", with a pipeline")


def actor_html(actor: Any) -> str:
    """A card: name, what was learned, the model, the blocks of the pipeline, and the settings somebody chose."""
    head = f"<b>Actor</b> {escape(brief.line(actor.name))} <small>{escape(attempt(lambda: learned(actor)))}</small>"
    return card(head, attempt(lambda: _parts(actor), escape))


def _parts(actor: Any) -> str:
    pipeline = getattr(actor, "pipeline_", None) or actor.pipeline
    rows = [("model", brief.word(actor.model, 2 * brief.LINE))]
    if pipeline is not None:
        rows.append(("pipeline", brief.listed(block.name for block in pipeline.preprocessors)))
    parameters = inspect.signature(type(actor)).parameters.values()
    given = [(p.name, getattr(actor, p.name)) for p in parameters if p.kind is p.KEYWORD_ONLY]
    defaults = {p.name: p.default for p in parameters}
    chosen = [f"{name}={brief.word(value)}" for name, value in given if value is not defaults[name]]
    rows += [("settings", brief.listed(chosen))] if chosen else []
    cells = [f"<tr><td>{name}</td><td><code>{escape(text)}</code></td></tr>" for name, text in rows]
    return f"<table>{''.join(cells)}</table>"


#: What tests and the training loop ask an actor for, and a person does not.
_PLUMBING = {"set_params", "adopt", "learned", "model_", "pipeline_", "n_features_in_", "feature_names_in_"}


class Displayed:
    """How an actor shows itself: in a line, as a card, and by the names that a person completes."""

    def __dir__(self) -> list[str]:
        # scikit-learn's own methods work and are not offered: they would be half of what a tab shows.
        names = {name for kind in type(self).__mro__ if kind.__module__.startswith("h3lab.") for name in vars(kind)}
        found = sorted((names | set(vars(self))) - _PLUMBING)
        return [name for name in found if name.startswith("_") or (hasattr(self, name) and name[-8:] != "_request")]

    def __repr__(self, N_CHAR_MAX: int = 700) -> str:
        actor: Any = self
        told = f": {learned(actor)})"
        name = brief.word(actor.name)
        return f"Actor({name}, {brief.word(actor.model, brief.LINE - len(name) - len(told) - 8)}{told}"

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return {"text/plain": repr(self), "text/html": actor_html(self)}


def lab_html(line: str, slots: Iterable[tuple[str, str, str]]) -> str:
    """A card: how the lab is, and for each slot its name, its state and what runs there."""
    return card(f"<b>Lab</b> {escape(line)}", table_html(("slot", "state", "run"), slots))


def shape_of(shape: tuple[int, ...]) -> str:
    """``28×28``"""
    return "×".join(map(str, shape))
