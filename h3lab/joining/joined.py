"""Joins: rows of one source with the columns of others, which are looked up by their keys, one to one or many to one.

It knows sources, keys and what to do where a key is missing or doubled; it does not know blocks or workers. The first
source gives the rows; a column of another one is called ``source.column``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from h3lab import worlds
from h3lab.errors import DataError, UnknownName, UsageError
from h3lab.joining.lookup import Lookup, named
from h3lab.joining.pairs import pairs_of
from h3lab.joining.policies import STRICT, Policies
from h3lab.serial.contents import column_digest
from h3lab.serial.fingerprints import fingerprint
from h3lab.source import Part, Source

if TYPE_CHECKING:
    import pyarrow as pa


class Joined(Source):
    """``sources``: the first gives the rows. ``keys``: for each other one the columns that know a row, by the same name
    on both sides, or a dict of names here → there. ``needed``: the columns of other sources that will be read (None:
    all); only these are kept when :meth:`landed`."""

    numbered = False

    def __init__(
        self,
        sources: Mapping[str, Source],
        keys: Mapping[str, Any],
        policies: Policies = STRICT,
        lookups: Mapping[str, Lookup] | None = None,
    ) -> None:
        self.sources, self.policies = dict(sources), policies
        self.first_name, *others = list(self.sources)
        self.base = self.sources[self.first_name]
        self.keys_of = {name: pairs_of(name, keys.get(name), self.sources) for name in others}
        for name in keys:
            if name not in others:
                raise UnknownName("source to look up", name, others, "keys")
        self.bounded = all(source.bounded for source in self.sources.values())
        self.replayable = all(source.replayable for source in self.sources.values())
        self.ordered = self.base.ordered
        self._lookups = dict(lookups or {})
        self._matches: Sequence[Mapping[str, Any]] | None = None

    @property
    def schema(self) -> pa.Schema:
        import pyarrow as pa

        fields = list(self.base.schema)
        for name in self.keys_of:
            # What was landed has only the columns that somebody needs.
            kept = self._lookups[name].columns if name in self._lookups else self.sources[name].columns
            found = self.sources[name].schema
            fields += [pa.field(f"{name}.{column}", found.field(column).type) for column in kept]
        return pa.schema(fields)

    def parts(self) -> Sequence[Part]:
        return list(self._once("parts", self._cut))

    def _cut(self) -> list[Part]:
        parts, how = list(self.base.parts()), [self.asked, asdict(self.policies)]
        # Until each part has been matched, it is another one when any row that could be looked up may be another.
        versions = [] if self._matches is not None else [v for name in self.keys_of for v in self._versions(name)]
        matches = self._matches or [{}] * len(parts)
        dropping = self.policies.on_missing == "drop"
        cut = []
        for part, found in zip(parts, matches, strict=True):
            told = fingerprint(how, versions, found.get("kept", ""))[:16]
            version = f"{part.version}|{told}" if part.version and all(versions) else ""
            contents = {**part.contents, **found.get("contents", {})}
            rows = None if dropping else part.rows
            cut.append(replace(part, rows=rows, position=part.inside(), version=version, contents=contents))
        return cut

    def _versions(self, name: str) -> list[str]:
        """What tells that a lookup may have changed: its content once it was read, else what its source knows."""
        if name in self._lookups and self._lookups[name].digest:
            return [self._lookups[name].digest]
        return [part.version for part in self.sources[name].parts()]

    def read(self, part: Part, columns: Sequence[str] | None = None) -> pa.Table:
        """The rows of a part with what is looked up. DataError names source, keys and rows that are missing, where
        that is an error."""
        wanted = self.check(columns)
        table, found, kept = self._found(part, wanted)
        self.__dict__["_known"] = {**self.__dict__.get("_known", {}), "kept": (part, kept)}
        return self._side_by_side(table, found, kept, wanted)

    def _found(self, part: Part, wanted: Sequence[str]) -> tuple[pa.Table, dict[str, np.ndarray], np.ndarray | None]:
        """The first source's rows of a part; where each stands in the others; and which are kept (None: all)."""
        below = Part(**part.position["of"])
        own = [name for name in wanted if name in self.base.schema.names]
        pairs = [here for found in self.keys_of.values() for here, _ in found]
        table = self.base.read(below, list(dict.fromkeys([*own, *pairs])) or self.base.columns[:1])
        found = {name: self.lookup(name).find(table, self.keys_of[name]) for name in self.keys_of}
        return table, found, self._kept(found, table, below)

    def partly(self, column: str) -> str:
        name, _, rest = column.partition(".")
        return self.sources[name].partly(rest) if name in self.keys_of else self.base.partly(column)

    @property
    def notes(self) -> list[str]:
        """Those of each source."""
        others = [f"{name}: {note}" for name in self.keys_of for note in self.sources[name].notes]
        return [*self.base.notes, *others]

    def _side_by_side(
        self, table: Any, found: dict[str, np.ndarray], kept: np.ndarray | None, wanted: list[str]
    ) -> Any:
        import pyarrow as pa

        if kept is not None:
            table = table.filter(pa.array(kept))
            found = {name: rows[kept] for name, rows in found.items()}
        columns: dict[str, Any] = {}
        for name in wanted:
            source, _, column = name.partition(".")
            if name in table.column_names:
                columns[name] = table.column(name)
            else:
                columns[name] = self.lookup(source).take(column, found[source])
        if not wanted:
            return table.select([])
        return pa.table(columns, schema=pa.schema([self.schema.field(name) for name in wanted]))

    def _kept(self, found: Mapping[str, np.ndarray], table: Any, part: Part) -> np.ndarray | None:
        for name, rows in found.items() if self.policies.on_missing == "error" else ():
            if (rows < 0).any():
                raise self.absent(name, int((rows < 0).sum()), self.told(name, table, rows, part))
        if self.policies.on_missing != "drop":
            return None
        return np.asarray(np.logical_and.reduce([rows >= 0 for rows in found.values()]))

    def match(self, part: Part) -> dict[str, Any]:
        """What a part finds: ``rows``, ``dropped``, and by source ``missing``, a few ``examples`` of these, and which
        of its rows were ``used``, as packed bits. For :meth:`with_matches` also ``contents``, the digest of each column
        that is looked up, and ``kept``, that of the rows which are not left out."""
        below = Part(**part.position["of"])
        table = self.base.read(below, list(dict.fromkeys(h for pairs in self.keys_of.values() for h, _ in pairs)))
        found = {name: self.lookup(name).find(table, pairs) for name, pairs in self.keys_of.items()}
        out: dict[str, Any] = {"rows": table.num_rows, "missing": {}, "examples": {}, "used": {}}
        for name, rows in found.items():
            used = np.zeros(self.lookup(name).counts["rows"], bool)
            used[rows[rows >= 0]] = True
            out["missing"][name], out["used"][name] = int((rows < 0).sum()), np.packbits(used)
            out["examples"][name] = self.told(name, table, rows, below)
        whole = np.logical_and.reduce([rows >= 0 for rows in found.values()])
        out["dropped"] = int((~whole).sum())
        kept = whole if self.policies.on_missing == "drop" else None
        out["kept"] = "" if kept is None else fingerprint(kept)
        out["contents"] = {
            f"{name}.{column}": column_digest(self.lookup(name).take(column, rows if kept is None else rows[kept]))
            for name, rows in found.items()
            for column in self.lookup(name).columns
        }
        return out

    def with_matches(self, matches: Sequence[Mapping[str, Any]]) -> Joined:
        """The same, knowing what each part has found: a part is then another one only where its own rows are."""
        new = Joined(self.sources, self.asked, self.policies, self._lookups)
        new._matches = matches
        return new

    def told(self, name: str, table: Any, found: np.ndarray, part: Part) -> list[str]:
        """A few rows that found nothing, with their keys, for messages."""
        rows = np.flatnonzero(found < 0)[:3]
        names = [here for here, _ in self.keys_of[name]]
        values = table.select(names).take(rows).to_pylist()
        where = [f"row {part.start + int(row)} of {part.name!r}" for row in rows]
        return [f"{', '.join(map(str, v.values()))} ({at})" for v, at in zip(values, where, strict=True)]

    def absent(self, name: str, count: int, examples: Sequence[str], blocks: Sequence[str] = ()) -> DataError:
        """The error of keys that a lookup does not have."""
        by = ", ".join(there for _, there in self.keys_of[name])
        shown = f"{'; '.join(examples)}{', ...' if count > len(examples) else ''}"
        return DataError(
            f"{named(blocks)}{count} rows of {self.first_name!r} are not in {name!r} by {by}: {shown}. Leave them out "
            "with on_missing='drop', or take missing values for their columns with on_missing='fill'."
        )

    def keys(self, part: Part, table: pa.Table) -> np.ndarray:
        below = Part(**part.position["of"])
        if self.policies.on_missing != "drop":
            return self.base.keys(below, table)
        known = self.__dict__.get("_known", {}).get("kept")
        # Not read for what is known then: another thread may have read another part.
        kept = known[1] if known is not None and known[0] == part else self._found(part, [])[2]
        rows = self.base.read(below, self.base.columns[:1])
        return np.asarray(self.base.keys(below, rows)[kept])

    def lookup(self, name: str) -> Lookup:
        """What another source is looked up in; made in this process where nobody has landed it."""
        if name not in self._lookups:
            self._lookups[name] = Lookup.of(
                name,
                self.sources[name],
                self.keys_of[name],
                None,
                self.policies.on_duplicate,
                self.sources[name].columns,
            )
        return self._lookups[name]

    def landed(self, folder: Path, columns: Sequence[str], blocks: Mapping[str, Sequence[str]] = {}) -> Joined:
        """The same, with the columns that are needed of other sources put down as files, which all processes map.
        ``blocks``: source → those that look something up in it, for the error of a doubled key."""
        lookups, policy = {}, self.policies.on_duplicate
        for name, pairs in self.keys_of.items():
            used = [c.partition(".")[2] for c in columns if c.partition(".")[0] == name]
            lookups[name] = Lookup.of(name, self.sources[name], pairs, folder, policy, used, blocks.get(name, ()))
        return Joined(self.sources, self.asked, self.policies, lookups)

    @property
    def asked(self) -> dict[str, dict[str, str]]:
        """``keys``, as they can be given again."""
        return {name: dict(pairs) for name, pairs in self.keys_of.items()}

    def with_base(self, base: Source) -> Joined:
        """The same lookups for other rows."""
        return Joined({**self.sources, self.first_name: base}, self.asked, self.policies, self._lookups)

    @property
    def lookups(self) -> dict[str, Any]:
        """What :func:`with_lookups` needs; JSON-able."""
        others = {name: self.sources[name].describe() for name in self.keys_of}
        return {"first": self.first_name, "sources": others, "keys": self.asked, "policies": asdict(self.policies)}

    def describe(self) -> dict[str, Any]:
        told = {name: source.describe() for name, source in self.sources.items()}
        return {"kind": "joined", "sources": told, "keys": self.asked, "policies": asdict(self.policies)}

    @property
    def title(self) -> str:
        return f"{self.base.title} with {', '.join(self.sources[name].title for name in self.keys_of)}"

    def __getstate__(self) -> dict[str, Any]:
        # A lookup in memory is made again; one that was landed names its files.
        kept = {name: one for name, one in self._lookups.items() if one.folder is not None}
        return {**super().__getstate__(), "_lookups": kept}


def join(sources: Any, keys: Any, on_missing: str, on_duplicate: str) -> Joined:
    """A dict of sources, in any form that ``read`` takes, as one source."""
    if not isinstance(sources, Mapping) or len(sources) < 2:
        raise UsageError(
            f"keys={keys!r} came with {type(sources).__name__}; expected a dict of two sources or more, the first of "
            "which gives the rows: {'flights': flights, 'planes': planes}, keys={'planes': 'tailnum'}."
        )
    read = worlds.load(worlds.READ)
    opened = {str(n): s if isinstance(s, Source) else read(s) for n, s in sources.items()}
    for name in opened:
        if "." in name:
            raise UsageError(
                f"a source is called {name!r}; its columns are called name.column, so take a name without."
            )
    if not isinstance(keys or {}, Mapping):
        other = list(opened)[1]
        raise UsageError(
            f"keys={keys!r} came; expected a dict of the columns that know a row of each: keys={{{other!r}: {keys!r}}}."
        )
    return Joined(opened, keys or {}, Policies(on_missing, on_duplicate))


def with_lookups(rows: Any, lookups: Mapping[str, Any] | None) -> Any:
    """Raw rows for a pipeline whose blocks have sources of their own: these are opened again, or come in a dict beside
    the rows; anything else stays as it is."""
    if lookups is None or isinstance(rows, Joined):
        return rows
    policies = Policies(**lookups["policies"])
    read = worlds.load(worlds.READ)
    if isinstance(rows, Mapping) and lookups["first"] in rows:
        return Joined({name: read(one) for name, one in rows.items()}, lookups["keys"], policies)
    try:
        others = {name: worlds.reopen(told) for name, told in lookups["sources"].items()}
    except DataError as error:
        names = ", ".join(f"{name!r}: ..." for name in lookups["sources"])
        raise DataError(
            f"{error} Or pass the rows together with what they look up: {{{lookups['first']!r}: rows, {names}}}."
        ) from error
    return Joined({lookups["first"]: read(rows), **others}, lookups["keys"], policies)


def reopen(description: Mapping[str, Any]) -> Joined:
    """The inverse of ``describe``."""
    sources = {name: worlds.reopen(told) for name, told in description["sources"].items()}
    return Joined(sources, description["keys"], Policies(**description["policies"]))
