"""The notebook of the flights, whole, on real servers: files on HDFS, weather in PostgreSQL, planes in a CSV file."""

import json
import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

import h3lab as h3
from h3lab.cluster.labfolder import LabFolder

NOTEBOOK = Path(__file__).resolve().parents[2] / "notebooks" / "flights.ipynb"
PROOF = """
import json
tables = {**sources, "weather": h3.read(database, table="weather", key=["origin", "time_hour"])}
keys = {"weather": ["origin", "time_hour"], "planes": "tailnum"}
choices = {"on_missing": "fill", "on_duplicate": "first", "on_null_label": "drop"}
same = lab.prepare(pipeline, tables, keys=keys, to=f"{files}/prepared/{months}", **choices)
counts = feed.manifest["counts"]
print(json.dumps({"rows": len(feed), "dropped": counts["dropped"], "lookups": counts["lookups"], "url": feed.url,
                  "numbers": [feed.manifest["number"], same.manifest["number"]], "note": same.report().note,
                  "scores": [actor.score(held_out) for actor in (linear, deep)]}))
"""

pytestmark = [pytest.mark.service, pytest.mark.slow]


def test_flights_on_hdfs_weather_in_postgresql_and_planes_here(hdfs, postgres, session_lab, monkeypatch, tmp_path):
    monkeypatch.setenv("FLIGHTS_FILES", f"{hdfs}/h3lab")
    monkeypatch.setenv("FLIGHTS_DATABASE", postgres)
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    # The session's lab is used, and stays.
    notebook.cells = [cell for cell in notebook.cells if cell.source != "lab.close()"]
    notebook.cells.append(nbformat.v4.new_code_cell(PROOF))
    client = NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}})
    client.execute(env=dict(os.environ))
    proof = json.loads(notebook.cells[-1].outputs[-1].text.splitlines()[-1])
    assert (proof["rows"], proof["dropped"]) == (327_346, 9_430)
    assert proof["lookups"]["planes"] == {
        "rows": 3322,
        "duplicates": 0,
        "without_key": 0,
        "missing": 52606,
        "surplus": 0,
    }
    assert (proof["lookups"]["weather"]["missing"], proof["lookups"]["weather"]["surplus"]) == (1556, 6737)
    assert proof["numbers"] == [1, 1] and "all of it was used again" in proof["note"]
    assert all(0.02 < score < 0.5 for score in proof["scores"]), "better than the mean, and no wonder"
    assert len(h3.open_feed(proof["url"])) == 327_346
    assert LabFolder().kept
