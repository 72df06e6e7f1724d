"""What a viewer asks holds from a step on, the same after a recovery, and in a group for all ranks at once."""

from typing import Any

import pytest

from h3lab.cluster import steering
from h3lab.cluster.attempt import Attempt
from h3lab.cluster.steering import Steering, Stop
from h3lab.running.folder import RunFolder
from h3lab.settings import Setting, Settings


class Steps:
    """As much of a training as steering sees: the steps done, and the settings that the next one takes."""

    def __init__(self, step: int = 0) -> None:
        self.step = step
        self.settings = Settings([Setting("lr", float, 1e-3, low=0), Setting("width", int, 8, steerable=False)])
        self.rates: dict[int, float] = {}

    def go(self, driver: Steering, steps: int) -> "Steps":
        for _ in range(steps):
            driver.obey(self)
            self.step += 1
            self.rates[self.step] = self.settings.lr
        return self


class Asked:
    """A run's folder, and what its ranks write of their steering: events of the journal, states, snapshots."""

    def __init__(self, ranks: int = 1) -> None:
        self.folder = RunFolder.claim("steered")
        slots = [{"name": f"slot{rank}", "pid": 1, "born": 0.0, "host": "here"} for rank in range(ranks)]
        self.attempt = Attempt.begin(self.folder, slots, from_step=0)
        self.events: list[dict[str, Any]] = []
        self.states: list[str] = []
        self.snapshots = 0
        self.when_paused = lambda: self.folder.ask(resume=True)

    def tell(self, event: str, **values: Any) -> None:
        self.events.append({"event": event, **values})

    def report(self, state: str) -> None:
        self.states.append(state)
        if state == "paused":
            self.when_paused()

    def snap(self) -> int:
        self.snapshots += 1
        return 4

    def driver(self, rank: int = 0, events: Any = (), step: int = 0) -> Steering:
        driver = Steering(self.folder, self.attempt, rank, len(self.attempt.slots), self.tell, self.report, self.snap)
        driver.begin(list(events), step)
        return driver


@pytest.fixture(autouse=True)
def at_once(tmp_path, monkeypatch):
    monkeypatch.setenv("H3LAB_HOME", str(tmp_path))
    monkeypatch.setattr(steering, "POLL_SECONDS", 0.0)


def test_what_was_asked_before_the_first_step_holds_from_it_on():
    asked = Asked()
    number = asked.folder.ask(set={"lr": 0.5})
    assert Steps().go(asked.driver(), 2).rates == {1: 0.5, 2: 0.5}
    assert asked.events == [{"event": "set", "control": number, "step": 1, "values": {"lr": 0.5}}]


def test_a_setting_holds_from_the_step_that_is_confirmed():
    asked = Asked()
    driver, steps = asked.driver(), Steps()
    steps.go(driver, 3)
    asked.folder.ask(set={"lr": 0.1})
    asked.folder.ask(set={"lr": 0.2})
    steps.go(driver, 2)
    assert [steps.rates[n] for n in range(1, 6)] == [1e-3] * 3 + [0.2] * 2
    assert [(e["control"], e["step"]) for e in asked.events] == [(1, 4), (2, 4)]


def test_after_a_recovery_a_setting_holds_from_the_same_step_again():
    first = Asked()
    driver, steps = first.driver(), Steps()
    steps.go(driver, 6)
    first.folder.ask(set={"lr": 0.1})
    steps.go(driver, 3)
    again = first.driver(events=first.events, step=4)  # its last snapshot was taken before the change
    assert Steps(4).go(again, 5).rates == {n: rate for n, rate in steps.rates.items() if n > 4}
    assert len(first.events) == 2 and first.events[0] == first.events[1]


def test_what_a_snapshot_has_already_is_not_applied_again():
    first = Asked()
    first.folder.ask(set={"lr": 0.1})
    Steps().go(first.driver(), 5)
    later = Steps(5)
    later.settings = later.settings.replace(lr=0.7)
    assert set(later.go(first.driver(events=first.events, step=5), 2).rates.values()) == {0.7}


def test_pause_holds_the_step_and_resume_goes_on():
    asked = Asked()
    driver, steps = asked.driver(), Steps()
    steps.go(driver, 2)
    held = []
    asked.when_paused = lambda: (held.append(steps.step), asked.folder.ask(set={"lr": 0.9}), asked.folder.ask(resume=1))
    asked.folder.ask(pause=True)
    steps.go(driver, 1)
    assert held == [2] and asked.states == ["paused", "training"]
    assert steps.rates[3] == 0.9
    assert [(e["event"], e["step"]) for e in asked.events] == [("pause", 2), ("set", 3), ("resume", 2)]


def test_a_pause_outlives_its_rank_unless_it_was_over():
    asked = Asked()
    asked.folder.ask(pause=True)

    def die():
        raise ConnectionError

    asked.when_paused = die
    for events in ([], [{"event": "pause", "control": 1, "step": 0}]):
        with pytest.raises(ConnectionError):
            Steps().go(asked.driver(events=events), 1)
    assert asked.states == ["paused", "paused"]
    over = [{"event": "pause", "control": 1, "step": 0}, {"event": "resume", "control": 2, "step": 0}]
    Steps().go(asked.driver(events=over), 3)
    assert asked.states == ["paused", "paused"]


def test_stop_is_raised_before_the_step_and_names_the_last_one():
    asked = Asked()
    driver, steps = asked.driver(), Steps()
    steps.go(driver, 2)
    asked.folder.ask(stop=True)
    with pytest.raises(Stop):
        steps.go(driver, 1)
    assert steps.step == 2 and asked.events[-1] == {"event": "stop", "control": 1, "step": 2}
    assert issubclass(Stop, GeneratorExit)  # what a generator takes as its caller's wish to end


def test_what_no_step_can_take_is_refused_and_the_training_goes_on():
    asked = Asked()
    asked.folder.ask(set={"lr": "x"})
    asked.folder.ask(set={"width": 16})
    asked.folder.ask(dance=True)
    assert Steps().go(asked.driver(), 2).rates == {1: 1e-3, 2: 1e-3}
    assert [(event["event"], event["control"]) for event in asked.events] == [("refused", n) for n in (1, 2, 3)]
    for event, word in zip(asked.events, ("expected a number", "cannot change", "no control 'dance'"), strict=True):
        assert word in event["message"]


def test_a_snapshot_is_taken_between_two_steps():
    asked = Asked()
    driver, steps = asked.driver(), Steps()
    steps.go(driver, 4)
    asked.folder.ask(snapshot=True)
    steps.go(driver, 1)
    assert asked.snapshots == 1 and asked.events == [{"event": "snapshot", "control": 1, "step": 4}]


def test_a_group_takes_a_setting_at_the_same_step():
    asked = Asked(ranks=2)
    drivers, ranks = [asked.driver(rank) for rank in (0, 1)], [Steps(), Steps()]
    for number in range(1, 8):
        if number == 4:
            asked.folder.ask(set={"lr": 0.1})
        # Rank 0 looks before its step; until it has taken it nobody can have finished the same one.
        for steps, driver in zip(ranks, drivers, strict=True):
            steps.go(driver, 1)
    assert ranks[0].rates == ranks[1].rates
    assert [ranks[0].rates[n] for n in (4, 5)] == [1e-3, 0.1]


def test_a_group_begins_with_what_was_asked_before_it():
    asked = Asked(ranks=2)
    asked.folder.ask(set={"lr": 0.25})
    ranks = [Steps().go(driver, 2) for driver in [asked.driver(rank) for rank in (0, 1)]]
    assert ranks[0].rates == ranks[1].rates == {1: 0.25, 2: 0.25}
