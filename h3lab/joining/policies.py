"""Policies: what to do where a key is missing from a lookup, or stands in it twice."""

from __future__ import annotations

from dataclasses import dataclass

from h3lab.errors import UnknownName

MISSING, DUPLICATE = ("error", "drop", "fill"), ("error", "first")


@dataclass(frozen=True)
class Policies:
    """``on_missing``: a row whose key another source does not have is an ``"error"``, is left out (``"drop"``) or gets
    nulls (``"fill"``). ``on_duplicate``: a key that stands twice in a lookup is an ``"error"``, or its ``"first"`` row
    counts."""

    on_missing: str = "error"
    on_duplicate: str = "error"

    def __post_init__(self) -> None:
        if self.on_missing not in MISSING:
            raise UnknownName("on_missing", self.on_missing, MISSING)
        if self.on_duplicate not in DUPLICATE:
            raise UnknownName("on_duplicate", self.on_duplicate, DUPLICATE)


#: Every key must be there, once.
STRICT = Policies()
