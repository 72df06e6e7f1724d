"""Pending records: those whose metrics may still be on a device, fetched together so that no step waits for one.

It knows records and time; it does not know what made them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from h3lab.records import AXES, Record

FETCH_SECONDS, FETCH_RECORDS = 0.1, 64


class Pending:
    """Records in order. :meth:`fetched` gives them out one by one, so that what is left can go into a snapshot."""

    def __init__(self) -> None:
        self.records: list[Record] = []

    def append(self, record: Record) -> None:
        """Add the newest."""
        self.records.append(record)

    def due(self) -> bool:
        """Whether it is time to fetch: enough records, or the oldest has waited long enough."""
        records = self.records
        return len(records) >= FETCH_RECORDS or records[-1]["seconds"] - records[0]["seconds"] >= FETCH_SECONDS

    def fetched(self) -> Iterator[Record]:
        """All records, oldest first, with plain numbers."""
        self.records = [{n: v if n in AXES else _plain(v) for n, v in record.items()} for record in self.records]
        while self.records:
            yield self.records.pop(0)


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value
