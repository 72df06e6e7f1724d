"""The notebooks run as they are written. The pages of docs/ do in `test_pages.py`."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

import h3lab as h3
from h3lab.cluster.labfolder import LabFolder

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.fixture
def lab_ends() -> Iterator[None]:
    """Also where an example fails in the middle, so that the next one finds free engines."""
    yield
    if LabFolder().kept:
        h3.Lab().close(force=True)


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


@pytest.mark.usefixtures("lab_ends")
@pytest.mark.cluster
@pytest.mark.slow
def test_the_hello_world_notebook_runs_on_a_real_kernel(tmp_path):
    notebook = nbformat.read(ROOT / "notebooks" / "hello.ipynb", as_version=4)
    place = next(i for i, cell in enumerate(notebook.cells) if cell.cell_type == "code") + 1
    notebook.cells.insert(place, nbformat.v4.new_code_cell("teacher_epochs, student_steps, seeds = 3, 60, 2"))
    notebook.cells.append(nbformat.v4.new_code_cell(PROOF))
    client = NotebookClient(
        notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()
    proof = json.loads(notebook.cells[-1].outputs[0].text)
    assert proof["teacher"] > 0.95
    assert proof["records"] == list(range(1, 3 * proof["steps"] + 1)), "every step, once, after attaching"
    assert proof["students"] == 2 * 3 * 2 and set(proof["verdicts"]) <= {"gain", "no gain", "loss"}
    assert len(proof["verdicts"]) == 12
    shown = [output.data for cell in notebook.cells for output in cell.get("outputs", []) if "data" in output]
    assert any("image/png" in data and "teacher" in data["text/plain"] for data in shown), "no picture of the run"
    assert not list(tmp_path.iterdir()), "a notebook writes nothing beside itself"


PROOF = """
import json
print(json.dumps({
    "teacher": teacher.score(held_out), "records": again.frame()["step"].tolist(), "steps": feed.steps(32),
    "students": len(results), "verdicts": compared["verdict"].tolist(),
}))
"""
