"""What every Source promises, as checks that its author can run on a small one (up to some thousand rows).

They know the interface of Source; they do not know where its rows come from.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from html import escape
from typing import Any

import numpy as np

from h3lab import worlds
from h3lab.errors import DataError, UnknownName, UsageError, guided
from h3lab.serial import signed
from h3lab.source import Part, Source


@guided
def check_source(source: Source, *, secret: str | None = None) -> None:
    """Raises AssertionError that says what a source breaks of its promises. ``secret``: a password that was given
    with it, and must not be seen anywhere."""
    if not isinstance(source, Source):
        raise UsageError(f"a {type(source).__name__} came; expected a Source, for example h3.read(...).")
    # Without these promises there is nothing to compare with, and nothing but its head is ever read.
    promised = source.bounded and source.replayable and source.ordered
    for check in SOURCE_CHECKS if promised else (check_schema, check_promises, check_pictures):
        check(source)
    if secret is not None:
        shown = [repr(source), str(source._repr_mimebundle_()), json.dumps(source.describe())]
        assert not any(secret in text for text in shown), "the source shows its password"


def check_schema(source: Source) -> None:
    """Names are text, each stands once, and ``columns`` lists them."""
    names = source.schema.names
    assert names and all(isinstance(name, str) for name in names), f"columns are {names}"
    assert len(set(names)) == len(names), f"a column stands twice: {names}"
    assert source.columns == names


def check_promises(source: Source) -> None:
    """``bounded``: there is an end, and reading to it brings no more parts. ``replayable``: rows that are read again
    are the same. ``ordered``: they come in the same order. What is not promised is told in the picture."""
    names = ("bounded", "replayable", "ordered")
    for name in names:
        assert isinstance(getattr(source, name), bool), f"{name} is {getattr(source, name)!r}, not True or False"
    assert all(getattr(source, name) for name in names) or source.notes, "what it does not promise is not in its notes"
    if not source.bounded:
        return
    parts = source.parts()
    assert isinstance(parts, Sequence), f"bounded, and parts() gives a {type(parts).__name__}, which may have no end"
    first = [source.read(part) for part in parts]
    assert len(source.parts()) == len(parts), "bounded, and it has more parts after it was read to its end"
    for part, table in zip(parts, first, strict=True) if source.replayable else ():
        again, before = (list(map(repr, rows.to_pylist())) for rows in (source.read(part), table))
        where = f"part {part.index}, read again, has"
        assert sorted(again) == sorted(before), f"{where} other rows: the source is not replayable"
        assert not source.ordered or again == before, f"{where} its rows in another order: the source is not ordered"


def check_parts(source: Source) -> None:
    """Parts are numbered from 0, are the same when asked again, and can be written as JSON."""
    parts = list(source.parts())
    assert [part.index for part in parts] == list(range(len(parts))), "parts are not numbered 0, 1, 2, ..."
    assert parts == list(source.parts()), "parts differ when they are asked for again"
    for part in parts:
        told = json.loads(json.dumps(dict(part.position)))
        again = Part(part.index, part.rows, part.name, part.start, told, part.version)
        assert source.read(again).equals(source.read(part)), f"part {part.index} read by its JSON has other rows"
        assert isinstance(part.version, str), f"the version of part {part.index} is no text"


def check_reading(source: Source) -> None:
    """All columns with their types, or those that are asked for, in that order; a misspelt one is an UnknownName."""
    schema = source.schema
    for part in source.parts():
        table = source.read(part)
        assert table.schema.equals(schema), f"part {part.index} has the schema {table.schema}, not {schema}"
        assert part.rows in (None, table.num_rows), f"part {part.index}: {part.rows} rows told, {table.num_rows} read"
        some = source.columns[::-2]
        assert source.read(part, some).equals(table.select(some)), f"columns {some} of part {part.index} differ"
    wrong = source.columns[0] + "x"
    for part in list(source.parts())[:1]:
        try:
            source.read(part, [wrong])
        except UnknownName as error:
            assert source.columns[0] in str(error), "the error does not list the columns"
        else:
            raise AssertionError(f"a column {wrong!r} was read, which does not exist")


def check_counting(source: Source) -> None:
    """``len`` counts the rows, ``head`` shows the first."""
    tables = list(source.tables())
    assert len(source) == sum(table.num_rows for table in tables), "len(source) is not the number of its rows"
    head = source.head(3)
    assert list(head.columns) == source.columns and len(head) == min(3, len(source)), "head(3) is not three rows"
    first = [row for table in tables for row in table.slice(0, 3).to_pylist()][:3]
    assert source.first(3).to_pylist() == first, "first(3) has other rows than the first part"
    none = source.first(0)
    assert (none.num_rows, none.column_names) == (0, source.columns), "first(0) is no table of all columns without rows"


def check_keys(source: Source) -> None:
    """A key a row, the same whichever columns were read; different rows have different keys unless the user said
    otherwise."""
    found = []
    for part in source.parts():
        table = source.read(part)
        keys = source.keys(part, table)
        assert keys.dtype == np.uint64 and keys.shape == (table.num_rows,), f"keys of part {part.index}: {keys!r}"
        one = source.keys(part, source.read(part, source.columns[-1:]))
        assert np.array_equal(keys, one), f"keys of part {part.index} depend on the columns that were read"
        found.append(keys)
    keys = np.concatenate(found) if found else np.zeros(0, np.uint64)
    assert not source.numbered or len(np.unique(keys)) == len(keys), "two rows have the same key"


def check_travel(source: Source) -> None:
    """It goes to another process, and is opened again from its description, with the same rows and keys."""
    _same(source, signed.loads(signed.dumps(source)), "after a journey")
    description = json.loads(json.dumps(source.describe()))
    try:
        again = worlds.reopen(description)
    except DataError as error:
        assert "again" in str(error), f"a source that cannot be reopened says what to do, not: {error}"
    else:
        _same(source, again, "opened again")


def check_split(source: Source) -> None:
    """Both sides together are the rows, each row once; it travels, and can be split again."""
    train, test = source.split(test=0.5, seed=3)
    below = _keys(source)
    sides = [_keys(train), _keys(test)]
    assert sorted(np.concatenate(sides).tolist()) == sorted(below.tolist()), "a split loses or doubles rows"
    assert len(train) == len(sides[0]) and len(test) == len(sides[1])
    assert not set(sides[0].tolist()) & set(sides[1].tolist()), "a key is on both sides"
    _same(test, signed.loads(signed.dumps(test)), "after a journey")
    for check in (check_schema, check_parts, check_reading, check_keys):
        check(train)


def check_pictures(source: Source) -> None:
    """Text and HTML without scripts."""
    bundle = source._repr_mimebundle_()
    assert source.columns[0] in repr(source) and source.columns[0] in bundle["text/plain"]
    for note in source.notes:
        assert note in repr(source) and escape(note) in bundle["text/html"], f"{note!r} is not in its picture"
    assert "<script" not in bundle["text/html"] and "http" not in bundle["text/html"].replace(source.title, "")


SOURCE_CHECKS: tuple[Callable[[Source], None], ...] = (
    check_schema,
    check_promises,
    check_parts,
    check_reading,
    check_counting,
    check_keys,
    check_travel,
    check_split,
    check_pictures,
)


def _keys(source: Source) -> Any:
    parts = source.parts()
    return np.concatenate([np.zeros(0, np.uint64), *(source.keys(part, source.read(part)) for part in parts)])


def _same(one: Source, two: Source, when: str) -> None:
    assert one.schema.equals(two.schema), f"the schema differs {when}"
    assert list(one.parts()) == list(two.parts()), f"the parts differ {when}"
    for part in one.parts():
        assert one.read(part).equals(two.read(part)), f"the rows of part {part.index} differ {when}"
    assert np.array_equal(_keys(one), _keys(two)), f"the keys differ {when}"
