"""A feed's portrait: in a line, and as a card with its blocks, the distribution of its labels and its parts.

It knows feeds and HTML; whatever goes wrong while looking is shown in the picture, and never raised.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from h3lab import brief
from h3lab.errors import redacted
from h3lab.pictures import SHOWN, attempt, card, shape_of, short, table_html

if TYPE_CHECKING:
    from h3lab.feeds.feed import Feed

#: Bars of the distribution of a quantity; how many targets have one.
BARS, TARGETS = 30, 4
#: Most bars would be flat where the median is nearer to an end than this share of the range, or where 98 of 100 rows
#: are within that one.
SKEWED, NARROW = 0.1, 0.3


def feed_line(feed: Feed) -> str:
    """``1,437 rows · classification, 10 classes · 64 features · pixels (64) float32``"""
    spec = feed.spec
    task = str(spec).rpartition(", ")[0] if spec.outputs else "no label"
    blocks = [f"{b.name} ({shape_of(b.shape)}) {b.dtype}{' sparse' if b.sparse else ''}" for b in spec.blocks.values()]
    told = f"{len(feed):,} rows · {task} · {spec.features:,} features · "
    left = f" · {feed.dropped:,} rows without a label left out" if feed.dropped else ""
    return told + brief.listed(blocks, brief.LINE - len(f"Feed: {told}{left}")) + left


def feed_html(feed: Feed) -> str:
    """A card: what the feed is, its blocks, the distribution of its labels, and its parts with their versions."""
    place = redacted(feed.url) if feed.url else "rows are prepared when they are due" if _due(feed) else "in memory"
    if feed.parent is not None:
        place += f" · a view: {len(feed):,} of {len(feed._whole):,} rows"
    head = f"<b>Feed</b> {escape(attempt(lambda: str(feed)))}<br><small>{escape(place)}</small>"
    body = [attempt(lambda look=look: look(feed), escape) for look in (_blocks, _labels, _parts)]  # type: ignore[misc]
    return card(head, "".join(body))


def _due(feed: Feed) -> bool:
    return feed._rows.window > 0


def _blocks(feed: Feed) -> str:
    rows = [[b.name, shape_of(b.shape), b.dtype + " sparse" * b.sparse] for b in feed.spec.blocks.values()]
    return table_html(["block", "shape of a row", "type"], rows)


def _labels(feed: Feed) -> str:
    name = str((feed._whole._account or {}).get("label") or ("label" if feed.spec.classes else "target"))
    if _due(feed):
        counts = (feed._whole._account or {}).get("counts", {}).get("labels")
        # Labels of a view, or of rows that a fitted pipeline was given, would have to be read.
        return _classes(name, feed.spec.labels, counts) if counts and feed.spec.labels and feed.parent is None else ""
    y = feed.targets()
    if y is None or not len(y):
        return ""
    if feed.spec.labels is not None:
        return _classes(name, feed.spec.labels, np.bincount(y, minlength=len(feed.spec.labels)))
    columns = [(name, y)] if y.ndim == 1 else [(f"{name}{n}", y[:, n]) for n in range(y.shape[1])]
    more = f"<br><small>... {len(columns)} targets</small>" if len(columns) > TARGETS else ""
    return "".join(_quantity(*each) for each in columns[:TARGETS]) + more


def _classes(name: str, labels: Sequence[Any], given: Any) -> str:
    """A bar a class, the most frequent first, with its count and share."""
    counts = np.asarray(given)
    order = np.argsort(-counts, kind="stable")
    shown = order[: SHOWN if len(order) > SHOWN + 1 else None]
    total, most = max(1, int(counts.sum())), max(1, int(counts.max()))
    rows = [(short(labels[n]), int(counts[n]), counts[n] / most) for n in shown]
    rest = int(counts.sum() - counts[shown].sum())
    rows += [(f"{len(order) - len(shown)} others", rest, 0.0)] if len(shown) < len(order) else []
    cells = [
        f'<tr><td>{escape(label)}</td><td><span class="h3-bar" style="width:{10 * width:.2f}em"></span></td>'
        f'<td class="h3-number">{count:,}</td><td class="h3-number"><small>{_share(count / total)}</small></td></tr>'
        for label, count, width in rows
    ]
    head = f'<tr><th>{escape(short(name))}</th><th></th><th class="h3-number">rows</th><th></th></tr>'
    return f"<table>{head}{''.join(cells)}</table>"


def _share(share: float) -> str:
    """``9.0 %``"""
    return f"{100 * share:.1f} %" if share >= 0.001 or not share else "< 0.1 %"


def _quantity(name: str, y: np.ndarray) -> str:
    """Bars over an axis whose ends are said; a long tail is seen on a logarithmic one, or cut off and counted."""
    low, middle, high = (float(value) for value in (np.min(y), np.median(y), np.max(y)))
    told = f"{escape(short(name))}: {low:.4g} to {high:.4g}, median {middle:.4g}"
    if not low < high:
        return f'<div class="h3-bars"><small>{told}</small></div>'
    begin, end, note, scale = low, high, "", None
    first, last = (float(value) for value in np.quantile(y, [0.01, 0.99]))
    if min(middle - low, high - middle) < SKEWED * (high - low) or last - first < NARROW * (high - low):
        if low > 0:
            scale, note = np.log10, ", logarithmic axis"
        elif first < last:  # else nearly all rows have one value
            begin, end = first, last
            note = f", {int(((y < begin) | (y > end)).sum()):,} rows beyond the axis"
    seen = y if scale is None else scale(y)
    ends = (begin, end) if scale is None else (scale(begin), scale(end))
    heights = np.histogram(seen, bins=BARS, range=ends)[0]
    bars = "".join(_bar(height / max(1, heights.max())) for height in heights)
    axis = f'<div class="h3-axis"><span>{begin:.4g}</span><span>{end:.4g}</span></div>'
    return f'<div class="h3-bars"><div>{bars}</div>{axis}<small>{told}{note}</small></div>'


def _bar(height: float) -> str:
    # A bar of few rows is seen beside those of none.
    return f'<span class="h3-bar" style="height:{max(0.08, 3 * height) if height else 0:.2f}em"></span>'


def _parts(feed: Feed) -> str:
    """Of a prepared feed: the parts of its source, what of each was left out, and which version of it was read. Where
    some were used again, those that were not come first."""
    parts = (feed._whole._account or {}).get("source_parts", [])
    if not parts:
        return ""
    again = [bool(part.get("reused")) for part in parts]
    some = any(again) and not all(again)
    order = sorted(range(len(parts)), key=lambda n: some and again[n])[: SHOWN if len(parts) > SHOWN + 1 else None]
    rows = [_part(parts[n]) + ([["computed", "used again"][again[n]]] if some else []) for n in order]
    heads = ["part", "from row", "rows", "left out", "version", *[""] * some]
    told = f"... {len(parts):,} parts" if len(order) < len(parts) else ""
    told += f", {sum(again):,} of them used again" if told and some else ""
    told += f"{', ' if told else ''}of the whole feed, {len(feed._whole):,} rows" if feed.parent is not None else ""
    return table_html(heads, rows) + (f"<small>{told}</small>" if told else "")


def _part(part: Any) -> list[str]:
    numbers = (part["place"]["start"], part["rows"], part["dropped"])
    name, version = brief.line(part["place"]["name"], 60), brief.line(part["place"]["version"], 24)
    return [name, *(f"{count:,}" for count in numbers), version]
