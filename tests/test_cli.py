"""The command line where no lab runs: what it reads, what it refuses, and with which exit code."""

import json
import math
import time

import pandas as pd
import pytest

import h3lab as h3
from h3lab import cli
from h3lab.errors import UsageError
from h3lab.running import journal
from h3lab.running.folder import RunFolder


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("H3LAB_HOME", str(tmp_path))


def ended(name, state="finished", hours=0.0, **more):
    folder = RunFolder.claim(name)
    folder.write_info(name=name, created=time.time() - 3600 * hours, epochs=1)
    writer = journal.Writer(folder.journal, 1, 1)
    writer.record({"step": 1, "epoch": 1, "seconds": 0.5, "loss": 0.25})
    writer.close()
    (folder.path / "state.json").write_text(
        json.dumps({"state": state, "attempt": 1, "since": time.time() - 3600 * hours, **more})
    )
    (folder.logs / "rank0.0001.log").write_text("".join(f"line {number}\n" for number in range(200)))
    return folder


@pytest.mark.parametrize(
    ("text", "seconds"), [("30d", 30 * 86400), ("12h", 12 * 3600), ("90m", 5400), ("1.5h", 5400), ("0m", 0)]
)
def test_ages(text, seconds):
    assert cli._seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "30", "d", "-1d", "1 d", "1w", "1d2h", "1,5h"])
def test_an_age_that_is_none_is_refused(text, capsys):
    with pytest.raises(UsageError, match="for example 30d"):
        cli._seconds(text)
    assert cli.main(["rm", f"--older-than={text}"]) == 1 and "h3lab: " in capsys.readouterr().err


def test_rm_removes_what_ended_before_and_nothing_else(capsys):
    old, new, going = ended("old", hours=49), ended("new", hours=1), ended("going", "training", hours=99)
    assert cli.main(["rm", "--older-than", "2d"]) == 0
    assert capsys.readouterr().out == "removed old/1\n"
    assert not old.path.exists() and new.path.exists() and going.path.exists()
    assert cli.main(["rm", "--older-than", "2d"]) == 0
    assert capsys.readouterr().out == "nothing to remove\n"
    assert cli.main(["rm", "new", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == ["new/1"] and not new.path.exists()


def test_rm_of_a_run_that_trains_is_refused_before_anything_is_removed(capsys):
    old, going = ended("old"), ended("going", "training")
    assert cli.main(["rm", "old", "going"]) == 1
    assert capsys.readouterr().err.endswith("going/1 still trains. Stop it first: h3lab stop going/1\n")
    assert old.path.exists() and going.path.exists()
    assert cli.main(["rm", "old", "old/1"]) == 0, "named twice is removed once"
    assert capsys.readouterr().out == "removed old/1\n"


def test_the_table_of_runs_has_the_newest_first_and_says_what_their_journals_end_with():
    for name, hours in (("old", 2.0), ("new", 1.0)):
        ended(name, hours=hours)
    folder = RunFolder.claim("new")
    folder.write_info(name="new", created=time.time(), epochs=3, steps_per_epoch=2000, lab="default")
    writer = journal.Writer(folder.journal, 1, 1)
    for step in range(1, 5001):  # longer than what is read of it
        measured = {"val_loss": step / 10, "val_r2": 0.5} if step == 4800 else {}
        writer.record({"step": step, "epoch": 1 + step // 2000, "seconds": step / 100, "loss": 1 / step, **measured})
    writer.event("set", control=1, step=5001, values={"val_fraction": 1})
    writer.close()
    folder.write_state("stopped", attempt=1, step=5000, stopped_at=5000)
    table = h3.runs()
    assert table["name"].tolist() == ["new/2", "new/1", "old/1"]
    assert table.columns.tolist() == [
        *("name", "state", "epoch", "step", "loss", "val_loss", "val_accuracy", "val_r2", "seconds", "started", "lab")
    ]
    row = table.iloc[0]
    assert (row["state"], row["epoch"], row["step"], row["loss"]) == ("stopped", 3, 5000, 1 / 5000)
    assert (row["val_loss"], row["val_r2"]) == (480.0, 0.5)
    assert abs((pd.Timestamp.now() - row["started"]).total_seconds()) < 60, "in local time"


def test_the_end_of_a_journal_is_that_of_the_newest_attempt_with_a_record(tmp_path):
    assert journal.newest(tmp_path) == {}
    first, second = journal.Writer(tmp_path, 1, 1), journal.Writer(tmp_path, 2, 4)
    first.record({"step": 4, "epoch": 2, "seconds": 1.0, "loss": float("nan"), "val_loss": 0.5})
    first.flush()
    assert math.isnan(journal.newest(tmp_path)["loss"]) and journal.newest(tmp_path)["val_loss"] == 0.5
    second.record({"step": 4, "epoch": 2, "seconds": 1.0, "loss": 0.25})
    second.flush()
    assert journal.newest(tmp_path) == {"step": 4, "epoch": 2, "seconds": 1.0, "loss": 0.25}
    with open(tmp_path / "0002.jsonl", "ab") as file:
        file.write(b'{"step":5,"epo')  # a line that is being written
    assert journal.newest(tmp_path)["step"] == 4
    first.close(), second.close()


@pytest.mark.parametrize("arguments", [["rm"], ["stop"]])
def test_naming_nothing_is_an_error_that_says_what_to_name(arguments, capsys):
    assert cli.main(arguments) == 1
    assert capsys.readouterr().err.startswith("h3lab: name the runs to ")


@pytest.mark.parametrize("arguments", [[], ["dance"], ["logs", "--lines", "many"], ["start", "--engines", "two"]])
def test_a_wrong_command_line_has_code_two(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 2 and "usage: h3lab" in capsys.readouterr().err


def test_a_misspelt_run_is_told_with_the_closest(capsys):
    ended("digits")
    assert cli.main(["logs", "digist"]) == 1
    assert "Did you mean 'digits'" in capsys.readouterr().err


def test_logs_gives_the_last_lines(capsys):
    ended("digits")
    assert cli.main(["logs", "digits", "-n", "2"]) == 0
    assert capsys.readouterr().out.split("\n")[:2] == ["line 198", "line 199"]


def test_runs_newest_first(capsys):
    ended("old", hours=5)
    ended("new", "stopped", hours=1)
    assert cli.main(["runs"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert ["new/1" in lines[0], "old/1" in lines[1], "loss 0.25" in lines[1]] == [True] * 3
    assert cli.main(["runs", "--json"]) == 0
    assert [(row["name"], row["state"]) for row in json.loads(capsys.readouterr().out)] == [
        ("new/1", "stopped"),
        ("old/1", "finished"),
    ]


def test_ps_says_that_no_lab_runs(capsys):
    assert cli.main(["ps"]) == 0
    assert "no lab runs here (never started); h3lab start" in capsys.readouterr().out
    assert cli.main(["ps", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["lab"]["kept"] is False and told["runs"] == []


def test_attach_follows_to_the_end_and_tells_a_failure_by_its_code(capsys):
    ended("digits")
    assert cli.main(["attach", "digits", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["loss"] == 0.25
    ended("broken", "failed", error={"type": "ValueError", "message": "no", "traceback": "line 7"})
    assert cli.main(["attach", "broken"]) == 3
    assert "ValueError: no\nline 7" in capsys.readouterr().err


def test_stop_all_where_nothing_runs(capsys):
    assert cli.main(["stop", "--all", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"lab": "ended"}
