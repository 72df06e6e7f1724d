"""Brief: text that fits its line, so that a repr stays readable whatever names and numbers it is given.

It knows words alone; it does not know what they are of.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

#: Characters of a line. A repr is one, unless its noun says otherwise.
LINE = 120
#: Characters that one name among others may take.
NAME = 40


def line(text: object, width: int = LINE) -> str:
    """A text as one line of at most ``width`` characters; what is cut away is marked by ``…``.

    >>> line("two words,\\n    and more", 12)
    'two words, …'
    """
    return cut(" ".join(str(text).split()), width)


def cut(text: str, width: int = LINE) -> str:
    """The beginning of a line that has its spaces where it wants them."""
    return text if len(text) <= width else text[: max(0, width - 1)] + "…"


def listed(items: Iterable[object], width: int = LINE) -> str:
    """As many items as fit, and then how many there are; each is cut to :data:`NAME` characters.

    >>> listed(range(500), 24)
    '0, 1, 2, 3, 4, … (500)'
    """
    told = [line(item, NAME) for item in items]
    whole = ", ".join(told)
    if len(whole) <= width or len(told) == 1:
        return cut(whole, width)
    rest = f"… ({len(told):,})"
    room, shown = width - len(rest), ""
    for each in told:
        if len(shown) + len(each) + 2 > room:
            break
        shown += f"{each}, "
    if not shown and room > 4:  # one of many says more than none
        shown = f"{cut(told[0], room - 2)}, "
    return shown + rest


def word(value: Any, width: int = NAME) -> str:
    """A value as an argument in code: functions and classes by their names, because an address in memory says nothing
    and differs in every process; whatever else in one line.

    >>> word(len), word("a" * 50, 9)
    ('len', "'aaaaaaa…")
    """
    return line(getattr(value, "__name__", None) or repr(value), width)
