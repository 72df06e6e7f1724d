"""What is typed wrongly on a laboratory is answered at once, and leaves nothing behind."""

import misuse
import pytest

import h3lab as h3

from .conftest import until

CASES = [case for cases in misuse.LAB_GROUPS.values() for case in cases]


@pytest.fixture(scope="module")
def names(session_lab):
    """One long run and one that has ended, for all cases."""
    found = misuse.lab_names(session_lab)
    yield found
    found["run"].stop()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_it_is_answered(case, names):
    started = len(h3.runs())
    answer = misuse.answered(case.code, misuse.again(names))
    assert answer.kind == case.error, f"{answer.kind}: {answer.message}"
    missing = [words for words in case.words if words not in answer.message]
    assert not missing, f"{missing} missing in: {answer.message}"
    assert misuse.row(case.code, answer.kind, answer.message) in misuse.PAGE.read_text(encoding="utf-8"), (
        "docs/errors.md is out of date: python tests/misuse.py writes it anew"
    )
    assert len(h3.runs()) == started and names["run"].state == "training"


def test_what_has_ended_says_so_and_changes_nothing(names):
    """The rule of the API: on a finished run controls return its state."""
    done = names["done"]
    assert {done.set(lr=1.0), done.pause(), done.resume(), done.stop()} == {"finished"}
    until(lambda: names["run"].state == "training", what="the other run goes on")
