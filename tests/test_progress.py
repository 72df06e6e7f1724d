"""The line of progress promises no more than is known."""

import io

import pytest

from h3lab.running import progress
from h3lab.running.progress import Line, parts


@pytest.fixture
def clock(monkeypatch):
    """A clock that is set by hand."""

    class Clock:
        now = 0.0

        def monotonic(self):
            return self.now

    found = Clock()
    monkeypatch.setattr(progress, "time", found)
    return found


def test_time_left_is_that_of_the_pass_until_the_last_one(clock, monkeypatch):
    for name in ("H3LAB_NONINTERACTIVE", "IPP_NONINTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    stream = io.StringIO()
    show = parts(Line(stream))
    for at, step in [
        (10, ("fitting, pass 1", 1, 5)),  # the workers took ten seconds to start, which no other part will
        (14, ("fitting, pass 1", 3, 5)),
        (30, ("writing (text reused)", 1, 4)),
        (50, ("writing (text reused)", 3, 4)),
    ]:
        clock.now = at
        show(*step)
    assert stream.getvalue().splitlines() == [
        "fitting, pass 1: 1 of 5 parts, 10 s",
        "fitting, pass 1: 3 of 5 parts, 14 s, 4.0 s left in this pass",
        "writing (text reused): 1 of 4 parts, 30 s",
        "writing (text reused): 3 of 4 parts, 50 s, 10 s left",
    ]
