"""One laboratory for all of tests/cluster: real engines, a real keeper. A drill that kills puts it back in order."""

import contextlib
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import h3lab as h3
from h3lab.running.folder import ENDED


def until(condition: Callable[[], Any], seconds: float = 60.0, what: str = "") -> Any:
    """Wait for a condition, and give what it gave."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what or condition}"
        time.sleep(0.02)
    return found


@pytest.fixture(scope="session")
def session_lab() -> Iterator[h3.Lab]:
    lab = h3.Lab(engines=2)
    yield lab
    lab.close(force=True)


@pytest.fixture
def lab(session_lab: h3.Lab) -> Iterator[h3.Lab]:
    """The laboratory, with both slots ready, and nothing of the test left on it."""
    session_lab._alive()
    until(lambda: all(slot["state"] == "ready" for slot in session_lab._folder.status["slots"]), what="slots ready")
    yield session_lab
    session_lab._alive()
    for run in session_lab.runs:
        run.stop()
    until(lambda: not session_lab.runs, what="no run left")


@pytest.fixture(scope="session")
def digits() -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits

    X, y = load_digits(return_X_y=True)
    return X, y


@pytest.fixture
def other_home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home of the test's own, for a laboratory beside the session's; nothing of it may outlive the test."""
    import psutil

    path = Path(tempfile.mkdtemp(prefix="h3o-"))
    monkeypatch.setenv("H3LAB_HOME", str(path))

    def living() -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get("H3LAB_HOME") == str(path) and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    try:
        yield path
        until(lambda: not living(), 15, "nothing of this home lives")
    finally:
        for process in living():
            with contextlib.suppress(psutil.Error):
                process.kill()
        shutil.rmtree(path, ignore_errors=True)


def network(spec: Any) -> Any:
    from torch import nn

    return nn.Sequential(nn.Linear(spec.features, 32), nn.ReLU(), nn.Linear(32, spec.outputs))


def timeless(records: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Records without their clock, to compare bit for bit."""
    return [{name: value for name, value in record.items() if name != "seconds"} for record in records]


@pytest.fixture
def long_run(lab: h3.Lab, digits: tuple[np.ndarray, np.ndarray], request: pytest.FixtureRequest) -> Iterator[Any]:
    """A run that would go on for an hour, ten steps in; snapshots every hundred steps."""
    name = request.node.name.partition("[")[0].removeprefix("test_")[:60]
    actor = h3.Actor(name, h3.TorchModel(network))
    run = lab.train(actor, digits, epochs=100_000, validation=0.2, snapshot_every=100)
    until(lambda: run.step > 10, what="ten steps")
    yield run
    if run.folder.path.exists() and run.state not in ENDED:
        run.stop()
