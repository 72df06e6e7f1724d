"""The pages of docs/ run as they are written: the ```python blocks of a page, in order, in one namespace.

A new page is found by itself. One that starts a lab (`h3.Lab(` stands in its code) is a cluster test. Code that is
shown and not run, such as somebody else's program before it was moved over, stands in a ```py block.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

import h3lab as h3
from h3lab.cluster.labfolder import LabFolder

DOCS = Path(__file__).resolve().parent.parent / "docs"


def code_of(page: str) -> str:
    """The Python of a page, on the lines where it stands, so that a traceback points into the page."""
    inside, found = False, []
    for line in (DOCS / f"{page}.md").read_text(encoding="utf-8").splitlines():
        if line.startswith("```"):
            inside = line == "```python"
            found.append("")
        else:
            found.append(line if inside else "")
    return "\n".join(found)


def pages() -> Iterator[object]:
    """Every page that has code; the log and the architecture quote what is not meant to run."""
    for path in sorted(DOCS.glob("*.md")):
        code = code_of(path.stem)
        if path.stem not in ("LOG", "architecture") and code.strip():
            marks = [pytest.mark.cluster, pytest.mark.slow] if "h3.Lab(" in code else []
            yield pytest.param(path.stem, marks=marks)


@pytest.fixture
def lab_ends() -> Iterator[None]:
    """Also where an example fails in the middle, so that the next one finds free engines."""
    yield
    if LabFolder().kept:
        h3.Lab().close(force=True)


@pytest.mark.usefixtures("lab_ends")
@pytest.mark.parametrize("page", list(pages()))
def test_the_examples_of_a_page_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(code_of(page), f"docs/{page}.md", "exec"), {"__name__": page})
