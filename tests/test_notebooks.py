"""The notebooks and the pages of docs/ run as they are written."""

import re
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
# Pages whose examples need engines; the others run in this process.
WITH_ENGINES = ("getting-started", "steering")


def code_of(page: str) -> str:
    """The Python of a page, on the lines where it stands, so that a traceback points into the page."""
    lines, inside, found = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8").splitlines(), False, []
    for line in lines:
        if line.startswith("```"):
            inside = line == "```python"
            found.append("")
        else:
            found.append(line if inside else "")
    return "\n".join(found)


@pytest.mark.parametrize("page", ["data", "models", "distillation"])
def test_the_examples_of_a_page_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(code_of(page), f"docs/{page}.md", "exec"), {"__name__": page})


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_stored_without_outputs_and_can_be_shrunk(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in cells), "clear the outputs before committing"
    assert cells[0].metadata.get("tags") == ["parameters"], "papermill puts its values behind this cell"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_defines_nothing_twice(path):
    cells = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    defined = re.findall(r"^(?:def|class) (\w+)", "\n".join(cells), re.M)
    used = {name: len(re.findall(rf"\b{name}\b", "\n".join(cells))) - 1 for name in defined}
    assert all(count == 1 for count in used.values()), f"what is used twice belongs into the package: {used}"
