"""A report: what each worker did when a feed was prepared, read off what its manifest says.

It knows manifests, words and tables; it does not know how workers are fitted, nor where a feed is stored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING, Any

from h3lab.brief import LINE, listed
from h3lab.pictures import card, table_html

if TYPE_CHECKING:
    import pandas as pd

#: How a worker was fitted → what that means.
WAYS = {
    "merged": "merged: all rows, exact",
    "streamed": "streamed: all rows, by partial_fit",
    "column": "whole column",
    "sample": "sample",
    "applied": "nothing to learn",
    "frozen": "came fitted",
}
#: Workers of which nothing is remembered of a part.
_WHOLE = (WAYS["streamed"], WAYS["column"], WAYS["sample"])
_COLUMNS = {
    "block": "block",
    "worker": "worker",
    "fitted": "fitted on",
    "fit_seconds": "fit s",
    "nulls": "nulls",
    "seconds": "write s",
    "bytes": "bytes",
}

_NOTES = {
    "unchanged": "nothing had changed since: all of it was used again",
    "streamed": "its rows are prepared when they are due, and not stored",
}


@dataclass(frozen=True)
class Report:
    """What preparing a feed did. ``rows`` prepared, ``nbytes`` of the feed; ``dropped`` rows without a label,
    ``unmatched`` ones without a partner, left out; ``bad_rows`` by file, left out of the source before any split,
    ``aside``: the folder where they are; ``parts`` of the source, ``reused`` of them, not computed again;
    ``fit_seconds`` and ``write_seconds`` by the clock. ``workers``: a line each, with ``block``, ``worker``,
    ``fitted`` (on what), ``fit_seconds``; at a block's first worker ``nulls`` (missing values in its columns), at its
    last ``seconds`` and ``bytes`` of its output. Seconds of workers are summed over processes, so together they may be
    more than the clock's; None is what was not recorded. ``lookups``: counts by source that was looked up. ``kept``: by
    block the number of parts in which it was used as it was stored; ``again``: by block that was not, why;
    ``recalled``: by block the number of parts, over its passes, that were known and not looked at again to fit.
    """

    rows: int
    nbytes: int
    dropped: int = 0
    unmatched: int = 0
    bad_rows: Mapping[str, int] = field(default_factory=dict)
    aside: str | None = None
    parts: int = 0
    reused: int = 0
    passes: int = 0
    fit_seconds: float | None = None
    write_seconds: float | None = None
    workers: Sequence[Mapping[str, Any]] = ()
    lookups: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    kept: Mapping[str, int] = field(default_factory=dict)
    again: Mapping[str, str] = field(default_factory=dict)
    recalled: Mapping[str, int] = field(default_factory=dict)
    note: str = ""

    @classmethod
    def of(cls, told: Mapping[str, Any] | None, rows: int, nbytes: int) -> Report:
        """``told``: a manifest of a preparation, or None where rows came as arrays."""
        if told is None or "workers" not in told:
            return cls(rows, nbytes, note="its rows came as they are: no pipeline has prepared them")
        counts, seen = told["counts"], told["source_parts"]
        return cls(
            rows,
            nbytes,
            dropped=counts.get("dropped", 0),
            unmatched=counts.get("unmatched", 0),
            bad_rows=counts.get("bad_rows", {}),
            aside=_aside(told["source"]) if counts.get("bad_rows") else None,
            parts=len(seen),
            reused=sum(bool(part.get("reused")) for part in seen),
            passes=counts.get("passes", 0),
            fit_seconds=counts.get("fit_seconds"),
            write_seconds=counts.get("write_seconds"),
            workers=_workers(told),
            lookups=counts.get("lookups", {}),
            kept=_kept(told),
            again=counts.get("again", {}),
            recalled=counts.get("recalled", {}),
            note=next((note for name, note in _NOTES.items() if told.get(name)), ""),
        )

    def frame(self) -> pd.DataFrame:
        """One line a worker."""
        import pandas as pd

        return pd.DataFrame(list(self.workers), columns=list(_COLUMNS))

    def __repr__(self) -> str:
        lines = [f"Report: {self._head()}", *self._lines()]
        if self.workers:
            cells = [list(_COLUMNS.values()), *self._cells()]
            widths = [max(len(row[n]) for row in cells) for n in range(len(_COLUMNS))]
            left = len(_COLUMNS) - 4
            for row in cells:
                words = [w.ljust(n) if i < left else w.rjust(n) for i, (w, n) in enumerate(zip(row, widths))]
                lines.append("  ".join(words).rstrip())
        return "\n".join(lines)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        head = f"<b>Report</b> {escape(self._head())}"
        body = "".join(f"<br><small>{escape(line)}</small>" for line in self._lines())
        body += table_html(list(_COLUMNS.values()), self._cells()) if self.workers else ""
        return {"text/plain": repr(self), "text/html": card(head, body)}

    def _head(self) -> str:
        words = [f"{self.rows:,} rows, {size(self.nbytes)}"]
        if self.fit_seconds is not None and self.passes:
            words.append(f"fitted in {self.fit_seconds:.2f} s ({counted(self.passes, 'pass', 'passes')})")
        elif self.workers:
            words.append("applied, not fitted")
        if self.write_seconds is not None:
            words.append(f"written in {self.write_seconds:.2f} s")
        if self.parts:
            words.append(counted(self.parts, "part") + (f", {self.reused:,} of them reused" if self.reused else ""))
        return " · ".join(words)

    def _lines(self) -> list[str]:
        left = [f"{self.dropped:,} rows without a label" if self.dropped else ""]
        left.append(f"{self.unmatched:,} rows without a partner in a looked-up source" if self.unmatched else "")
        lines = [f"left out: {', '.join(filter(None, left))}"] if any(left) else []
        if self.bad_rows:
            files = listed((f"{name}: {count:,}" for name, count in self.bad_rows.items()), 2 * LINE)
            place = f"; set aside in {self.aside}" if self.aside else ""
            lines.append(f"left out of the source: {counted(sum(self.bad_rows.values()), 'bad row')} ({files}){place}")
        for name, counts in self.lookups.items():
            told = [f"{value:,} {_looked_up(key)}" for key, value in counts.items() if isinstance(value, int)]
            told = [w + (" (left out)" if self.unmatched else " (filled)") * ("not found" in w[2:]) for w in told]
            lines.append(f"looked up in {name}: {', '.join(told)}")
        if self.kept and not self.note:
            kept = [f"{name} ({count:,} of {counted(self.parts, 'part')})" for name, count in self.kept.items()]
            lines.append(f"used again as stored: {', '.join(kept)}")
        if self.recalled and not self.note:
            known = [f"{name} ({self._known(count)})" for name, count in self.recalled.items()]
            lines.append(f"fitted without looking at parts again: {', '.join(known)}")
        lines += [f"{name} was computed again: {why}" for name, why in self.again.items() if not self.note]
        whole = [f"{one['worker']} of {one['block']}" for one in self.workers if one["fitted"].startswith(_WHOLE)]
        if whole and self.passes and (self.kept or self.again) and not self.note:
            lines.append(f"fitted again on all rows, because no part can be fitted for itself: {', '.join(whole)}")
        return lines + ([self.note] if self.note else [])

    def _known(self, count: int) -> str:
        parts = counted(self.parts, "part")
        return f"{count:,} of {parts}" if count <= self.parts else f"{count:,} times, of {parts} a pass"

    def _cells(self) -> list[list[str]]:
        return [[_cell(name, one.get(name)) for name in _COLUMNS] for one in self.workers]


def _kept(told: Mapping[str, Any]) -> dict[str, int]:
    """By block how many parts have it as it was stored before: whole parts, and blocks of others."""
    seen = [part for part in told["source_parts"] if part.get("blocks")]
    counts = {
        name: sum(bool(part.get("reused") or part["blocks"][name].get("reused")) for part in seen)
        for name in (block["name"] for block in told["spec"]["blocks"])
        if all(name in part["blocks"] for part in seen)
    }
    return {name: count for name, count in counts.items() if count}


def _workers(told: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A line a worker, and one for a block without any."""
    now = bool(told["counts"].get("passes"))
    nulls = told["counts"].get("nulls") or _summed(told["source_parts"], "nulls")
    columns = told.get("columns", {})
    by_block: dict[str, list[Mapping[str, Any]]] = {block["name"]: [] for block in told["spec"]["blocks"]}
    for how in told["workers"]:
        by_block.setdefault(how["block"], []).append(how)
    lines = []
    for name, hows in by_block.items():
        block = [_line(name, how, now) for how in hows] or [{"block": name, "worker": "passed through", "fitted": ""}]
        known = [nulls[column] for column in columns.get(name, ()) if column in nulls]
        block[0]["nulls"] = sum(known) if known else None
        block[-1] |= _written(told["source_parts"], name)
        lines += block
    return lines


def _aside(source: Any) -> str | None:
    """Where bad rows of a source, by its description, are set aside: of the one that gives the rows."""
    while isinstance(source, dict) and source.get("kind") != "files":
        source = source.get("of") or next(iter(source.get("sources", {}).values()), None)
    policy = source.get("on_bad_rows") if source else None
    return None if policy in (None, "skip") else str(policy)


def _line(block: str, how: Mapping[str, Any], now: bool) -> dict[str, Any]:
    clones = f" ×{how['clones']}" if how.get("clones", 1) > 1 else ""
    way = WAYS.get(how["how"], how["how"])
    if how["how"] == "sample":
        way = f"sample of {how['share']:.1%} of the rows"
    way += ", cross-fitted" if "cross_fitted" in how else ""
    seconds = how.get("seconds") if now else None
    if not now and how["how"] not in ("applied", "frozen"):
        way = "other rows, before"
    return {"block": block, "worker": how["worker"] + clones, "fitted": way, "fit_seconds": seconds}


def _written(parts: Sequence[Mapping[str, Any]], block: str) -> dict[str, Any]:
    found = [(part.get("reused"), part["blocks"][block]) for part in parts if block in part.get("blocks", ())]
    if not found:
        return {"seconds": None, "bytes": None}
    seconds = sum(one["seconds"] for reused, one in found if not reused)
    return {"seconds": round(seconds, 6), "bytes": sum(one["bytes"] for _, one in found)}


def _summed(parts: Sequence[Mapping[str, Any]], what: str) -> dict[str, int]:
    total: dict[str, int] = {}
    for part in parts:
        for name, count in part.get(what, {}).items():
            total[name] = total.get(name, 0) + count
    return total


#: What is counted in a source that is looked up → in words.
_LOOKUPS = {
    "rows": "rows",
    "duplicates": "rows of a key that was there already (the first was taken)",
    "without_key": "of them without a key",
    "missing": "rows whose key was not found",
    "bad_rows": "bad rows, left out of it",
    "surplus": "rows that nobody asked for",
}


def _looked_up(key: str) -> str:
    return _LOOKUPS.get(key, key.replace("_", " "))


def _cell(name: str, value: Any) -> str:
    if value is None:
        return ""
    if name == "bytes":
        return size(value)
    return f"{value:.3f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


def counted(count: int, one: str, more: str | None = None) -> str:
    """``1 part``, ``3 parts``"""
    return f"{count:,} {one if count == 1 else more or one + 's'}"


def size(count: float) -> str:
    """``12.3 MB``, in decimal units."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:,.0f} {unit}" if unit == "bytes" else f"{count:,.1f} {unit}"
        count /= 1000
    raise AssertionError
