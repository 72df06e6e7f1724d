"""The command line where no lab runs: what it reads, what it refuses, and with which exit code."""

import json
import time

import pytest

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
