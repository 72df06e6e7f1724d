"""Pairs: the columns by which rows of the first source are looked up in another one, here and there.

It knows names and types; it does not know values.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from h3lab.errors import UsageError
from h3lab.joining.alike import alike
from h3lab.source import Source


def pairs_of(name: str, key: Any, sources: Mapping[str, Source]) -> tuple[tuple[str, str], ...]:
    """((column here, column there), ...) for source ``name``: columns that exist, of types that can be equal.
    UnknownName says which source has none of that name; UsageError where there is no key, or a name means two."""
    (first, base), other = next(iter(sources.items())), sources[name]
    if not key:
        raise UsageError(
            f"source {name!r} has no key to be looked up by. Name the columns that know its rows: "
            f"keys={{{name!r}: {other.columns[:1]!r}}}."
        )
    taken = next((column for column in base.columns if column.startswith(f"{name}.")), None)
    if taken is not None:
        raise UsageError(
            f"{first!r} has a column {taken!r}, and the columns of source {name!r} are called {name}.column. Call that "
            "source otherwise, in the dict, in keys and in its Preprocessors, or rename the column."
        )
    names = [key] if isinstance(key, str) else key
    pairs = tuple(names.items()) if isinstance(names, Mapping) else tuple((one, one) for one in names)
    for here, there in pairs:
        for column, owner in ((here, first), (there, name)):
            if column not in sources[owner].columns:
                context = f"source {owner!r} ({sources[owner].title}), for keys={{{name!r}: {key!r}}}"
                raise sources[owner].missing(column, context)
        alike(base.schema.field(here).type, other.schema.field(there).type, here, f"{name}.{there}")
    return pairs
