"""The notebooks run as they are written. The pages of docs/ do in `test_pages.py`."""

import json
import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

import h3lab as h3
from h3lab.cluster.labfolder import LabFolder
from h3lab.running.folder import ENDED

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
    assert "small" in cells[0].metadata, "the line with which the tests shrink it"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_defines_nothing_twice(path):
    cells = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    defined = re.findall(r"^(?:def|class) (\w+)", "\n".join(cells), re.M)
    used = {name: len(re.findall(rf"\b{name}\b", "\n".join(cells))) - 1 for name in defined}
    assert all(count == 1 for count in used.values()), f"what is used twice belongs into the package: {used}"


@pytest.mark.usefixtures("lab_ends")
@pytest.mark.cluster
@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_run_all_twice_in_one_kernel_and_again_in_another_gives_the_same_and_doubles_nothing(path, tmp_path):
    where = {"metadata": {"path": str(tmp_path)}}
    options: dict[str, Any] = {"timeout": 120, "kernel_name": "python3", "resources": where}
    passes, labs = [], []
    client = NotebookClient(shrunk(path), **options)
    with client.setup_kernel():
        for _ in range(2):
            passes.append(run_all(client, shrunk(path)))
            labs.append(engines())
        os.kill(client.km.provisioner.pid, signal.SIGKILL)
    client = NotebookClient(shrunk(path), **options)
    with client.setup_kernel():
        passes.append(run_all(client, shrunk(path)))
        labs.append(engines())
        run_all(client, nbformat.v4.new_notebook(cells=closing(path)))
    assert labs[0] == labs[1] == labs[2], "all of them on one lab, whose engines were not started again"
    assert not LabFolder().kept or not closing(path)
    assert not list(tmp_path.iterdir()), "a notebook writes nothing beside itself"
    for again in passes[1:]:
        assert [shown(cell) for cell in again] == [shown(cell) for cell in passes[0]], "a cell shows more or less"
    proofs = [json.loads(cells[-1].outputs[0].text) for cells in passes]
    assert proofs[0]["same"] == proofs[1]["same"] == proofs[2]["same"]
    CHECKS[path.stem](passes[0], proofs)


def shrunk(path: Path) -> nbformat.NotebookNode:
    """The notebook with small parameters, its proof, and without the cell that closes the lab."""
    notebook = nbformat.read(path, as_version=4)
    place = next(i for i, cell in enumerate(notebook.cells) if cell.cell_type == "code")
    notebook.cells.insert(place + 1, nbformat.v4.new_code_cell(notebook.cells[place].metadata["small"]))
    notebook.cells = [cell for cell in notebook.cells if cell.source != CLOSING]
    notebook.cells.append(nbformat.v4.new_code_cell(PROOFS[path.stem]))
    return notebook


def closing(path: Path) -> list[nbformat.NotebookNode]:
    """The cell that closes the lab, where a notebook has one."""
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.source == CLOSING]


def run_all(client: NotebookClient, notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    """Run All in the client's kernel, as it stands; the code cells with their outputs."""
    client.nb = notebook
    client.reset_execution_trackers()
    for index, cell in enumerate(notebook.cells):
        client.execute_cell(cell, index)  # CellExecutionError where a cell raises
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def engines() -> list[int]:
    """Processes of the lab: its keeper, and the engine of each slot."""
    assert h3.runs()["state"].isin(ENDED).all(), "a run is left"
    deadline = time.monotonic() + 10
    while any(slot["run"] for slot in LabFolder().status["slots"]):  # its last rank is on its way out
        assert time.monotonic() < deadline, f"a slot is not free: {LabFolder().status['slots']}"
    status = LabFolder().status
    return [status["pid"], *(slot["pid"] for slot in status["slots"])]


def shown(cell: nbformat.NotebookNode) -> list[list[str]]:
    """What kinds of output a cell has, in order; lines of progress come or not, by how long something takes."""
    return [sorted(output.data) for output in cell.outputs if output.output_type in ("display_data", "execute_result")]


def check_hello(cells: list[nbformat.NotebookNode], proofs: list[dict[str, Any]]) -> None:
    for number, proof in enumerate(proofs, start=1):
        assert proof["teacher"] > 0.95 and proof["number"] == proofs[0]["number"] + number - 1, "a run a pass"
        assert proof["records"] == list(range(1, 3 * proof["steps"] + 1)), "every step, once, after attaching"
        assert proof["students"] == 2 * 3 * 2 and set(proof["verdicts"]) <= {"gain", "no gain", "loss"}
        assert len(proof["verdicts"]) == 12
    outputs = [output.data for cell in cells for output in cell.outputs if "data" in output]
    assert any("image/png" in data and "teacher" in data["text/plain"] for data in outputs), "no picture of the run"
    waits = next(cell for cell in cells if cell.source.endswith("small_run.wait()"))
    assert sum("h3lab-run" in data.get("text/html", "") for data in map(data_of, waits.outputs)) == 1, "one card a cell"


def check_flights(cells: list[nbformat.NotebookNode], proofs: list[dict[str, Any]]) -> None:
    shown = next(cell for cell in cells if cell.source == "feed.report()").outputs[0].data
    for words in ("26,398 rows", "606 rows without a label", "rows whose key was not found (filled)"):
        assert words in shown["text/plain"] and words in shown["text/html"]
    for proof in proofs:
        assert (proof["rows"], proof["dropped"]) == (26_398, 606), "January's flights"
        assert proof["planes"]["missing"] > 1000 and proof["planes"]["duplicates"] == 0
        assert "looked up in planes: 3,327 rows, 5 rows of a key that was there already" in proof["doubled"]


def data_of(output: nbformat.NotebookNode) -> dict[str, Any]:
    return dict(output.get("data", {}))


#: Notebook → the code that proves what it has done. ``same`` must be the same in each pass; the teacher of the
#: hello-world notebook is not, because the step at which somebody changes its learning rate depends on the clock.
PROOFS = {
    "flights": """
import json
from h3lab.preparing.prepare import prepare
planes = pd.read_csv(package / "planes.csv")
doubled = prepare(
    pipeline,
    sources | {"flights": flown.head(2000), "planes": pd.concat([planes, planes.head(5)])},
    keys={"weather": ["origin", "time_hour"], "planes": "tailnum"},
    on_missing="fill",
    on_duplicate="first",
    on_null_label="drop",
)
report = feed.report()
print(json.dumps({
    "same": {"feed": feed.fingerprint, "rows": [len(rest), len(held_out)], "deep": deep.score(held_out)},
    "rows": report.rows,
    "dropped": report.dropped,
    "planes": report.lookups["planes"],
    "doubled": repr(doubled.report()),
}))
""",
    "hello": """
import json
print(json.dumps({
    "same": {"feed": feed.fingerprint, "rows": [len(feed), len(held_out), len(few)], "alone": alone.score(held_out),
             "seeds": [r.measures for r in results if r.way == "alone"]},
    "teacher": teacher.score(held_out), "records": again.frame()["step"].tolist(), "steps": feed.steps(32),
    "students": len(results), "verdicts": compared["verdict"].tolist(), "number": int(again.name.split("/")[1]),
}))
""",
}
CHECKS = {"flights": check_flights, "hello": check_hello}
CLOSING = "lab.close()"
