"""Starting, joining and ending a laboratory."""

import json
import subprocess
import sys

import pytest

import h3lab as h3
from h3lab.errors import LabError

from .conftest import until


def command(*arguments):
    done = subprocess.run([sys.executable, "-m", "h3lab", *arguments], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def test_a_cell_executed_twice_joins_what_runs(lab, capsys):
    before = lab._folder.status["pid"], [slot["pid"] for slot in lab._folder.status["slots"]]
    again = h3.Lab(engines=2)
    assert "joined" in capsys.readouterr().out
    assert before == (again._folder.status["pid"], [slot["pid"] for slot in again._folder.status["slots"]])
    with pytest.raises(LabError, match=r"h3\.Lab\(engines=3\)"):
        h3.Lab(engines=3)
    with pytest.raises(LabError, match="expected a whole number"):
        h3.Lab(engines=0)


def test_close_refuses_while_runs_train(lab, long_run):
    with pytest.raises(LabError, match=long_run.name):
        lab.close()


def test_leaving_with_an_exception_stops_the_runs_begun_in_it(lab, digits):
    from .conftest import network

    with pytest.raises(ZeroDivisionError), h3.Lab() as inner:
        run = inner.train(h3.Actor("within", h3.TorchModel(network)), digits, epochs=100_000)
        until(lambda: run.step > 3)
        1 / 0  # noqa: B018
    assert run.state == "stopped"
    assert lab._folder.kept  # it was joined there, so it is not ended there


def test_a_lease_can_be_extended(lab):
    ends = lab.extend(24)
    assert ends == pytest.approx(lab.extend(24), abs=60)
    lab.extend(12)


def test_the_command_line_lists_follows_and_stops(lab, long_run):
    code, out, _ = command("ps", "--json")
    told = json.loads(out)
    assert code == 0 and told["lab"]["state"] == "ready"
    assert [row["name"] for row in told["runs"]] == [long_run.name]
    assert long_run.name in command("ps")[1]
    code, out, _ = command("stop", long_run.name)
    assert code == 0 and "stopped after step" in out
    assert long_run.state == "stopped"
    assert command("attach", long_run.name)[0] == 0
    assert command("rm", long_run.name)[0] == 0
    code, _, err = command("logs", "nobody")
    assert code == 1 and "there is no run 'nobody'" in err
    assert command("stop")[0] == 1


def test_a_failed_run_has_an_exit_code_of_its_own(lab, digits):
    def broken(spec):
        raise ArithmeticError("no")

    run = lab.train(h3.Actor("exit", h3.TorchModel(broken)), digits)
    code, _, err = command("attach", run.name)
    assert code == 3 and "ArithmeticError" in err
