"""Whatever is typed wrongly is answered by an error of h3lab that says what to type; docs/errors.md has them all."""

import contextlib
import signal
from pathlib import Path

import misuse
import pytest

CASES = [case for cases in misuse.GROUPS.values() for case in cases]
LAB_CASES = [case for cases in misuse.LAB_GROUPS.values() for case in cases]
#: No answer may take longer; the slowest fits a network.
ANSWER_SECONDS = 60


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("misuse")
    misuse.make_files(folder)
    return folder


@pytest.fixture(scope="session")
def names(files):
    return misuse.namespace(misuse.PREFACE)


@pytest.fixture
def here(files, tmp_path, monkeypatch):
    """The files' folder, and a home without runs."""
    monkeypatch.chdir(files)
    monkeypatch.setenv("H3LAB_HOME", str(tmp_path))
    return files


@contextlib.contextmanager
def in_time():
    def late(*_):
        raise TimeoutError("no answer came")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(ANSWER_SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_it_is_answered(case, here, names):
    with in_time():
        answer = misuse.answered(case.code, misuse.again(names))
    assert answer.kind == case.error, f"{answer.kind}: {answer.message}"
    missing = [words for words in case.words if words not in answer.message]
    assert not missing, f"{missing} missing in: {answer.message}"
    assert misuse.row(case.code, answer.kind, answer.message) in misuse.PAGE.read_text(encoding="utf-8"), (
        "docs/errors.md is out of date: python tests/misuse.py writes it anew"
    )


@pytest.mark.parametrize(("name", "line", "code", "words"), misuse.COMMANDS, ids=[name for name, *_ in misuse.COMMANDS])
def test_a_command_line_is_answered(name, line, code, words, here):
    got, told = misuse.commanded(line)
    assert got == code and all(each in told for each in words), told
    assert "Traceback" not in told


def test_there_are_hundreds_of_them_each_of_its_own_name():
    names = [case.id for case in [*CASES, *LAB_CASES]] + [name for name, *_ in misuse.COMMANDS]
    assert len(set(names)) == len(names) > 250
    assert all(case.words for case in [*CASES, *LAB_CASES])


def test_every_error_of_the_tree_is_told():
    from h3lab import errors

    text = misuse.PAGE.read_text(encoding="utf-8")
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.H3labError)]
    assert len(kinds) >= 20 and all(f"- `{kind.__name__}`" in text for kind in kinds)


def test_the_page_has_the_cases_in_their_order_and_nothing_else():
    """What the messages say is compared case by case, those of a lab in tests/cluster."""
    text = misuse.PAGE.read_text(encoding="utf-8")
    lines = iter([line for line in text.splitlines() if line.startswith("| `")])
    rows = {
        name: next(lines, "") for name in [c.id for c in [*CASES, *LAB_CASES]] + [name for name, *_ in misuse.COMMANDS]
    }
    assert next(lines, None) is None
    assert text == misuse.page(rows), "python tests/misuse.py writes it anew"


def test_a_refused_call_leaves_what_was_stored(here, names):
    before = contents(here)
    for case in CASES:
        if "to=" in case.code or ".save(" in case.code:
            misuse.answered(case.code, misuse.again(names))
    after = contents(here)
    assert {name: data for name, data in after.items() if name in before} == before
