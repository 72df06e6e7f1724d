"""A run in one line, its speed, and what steers it: from values alone."""

import pytest

from h3lab.running.status import Speed, line, number, rate, settings
from h3lab.settings import Setting


def steps(count, seconds, start=0.0):
    return [{"step": n + 1, "epoch": 1, "seconds": start + n * seconds} for n in range(count)]


def test_speed_is_that_of_the_last_five_seconds():
    slow = steps(10, 1.0)
    fast = [{**record, "step": record["step"] + 10} for record in steps(1000, 0.01, start=10.0)]
    assert rate(slow + fast) == pytest.approx(100)
    assert rate(slow) == pytest.approx(1.0)


@pytest.mark.parametrize("records", [[], steps(1, 1.0), steps(2, 0.0)])
def test_no_speed_before_there_is_one(records):
    assert rate(records) is None


def test_who_keeps_no_records_knows_the_same_speed():
    records, speed = [*steps(10, 1.0), *[{**r, "step": r["step"] + 10} for r in steps(1000, 0.01, start=10.0)]], Speed()
    assert speed.rate is None
    for record in records:
        speed.look(record)
    assert speed.rate == pytest.approx(rate(records))
    speed.look({"step": 400, "seconds": 0.5})  # another attempt, another clock
    assert speed.rate is None


INFO = {"epochs": 20, "settings": [Setting("lr", float, 1e-3).to_json(), Setting("T", float, 4.0).to_json()]}


def test_what_steers_is_what_the_journal_says_last():
    info = {**INFO, "values": {"lr": 0.01}}
    events = [
        {"event": "attempt"},
        {"event": "set", "values": {"lr": 0.1}},
        {"event": "refused", "values": {"lr": 9}},
        {"event": "set", "values": {"lr": 0.2}},
    ]
    assert dict(settings(info, events)) == {"lr": 0.2, "T": 4.0}
    assert dict(settings(info, [])) == {"lr": 0.01, "T": 4.0}
    assert dict(settings({}, [])) == {}


def test_a_training_run_in_one_line():
    status = {
        "name": "teacher/3",
        "state": "training",
        "attempt": 1,
        "since": 9e8,
        "host": "here",
        "slots": ["slot0"],
        "step": 812,
        "epoch": 3,
        "loss": 0.4123,
        "accuracy": 0.8,
        "val_loss": 0.5,
        "val_accuracy": 0.871,
        "lr": 1e-3,
        "T": 4.0,
        "steps_per_second": 412.3,
    }
    shown = "teacher/3  epoch 3/20  loss 0.4123  val_accuracy 0.871  lr 1e-3  412 steps/s"
    assert line(INFO, status) == shown
    assert line(INFO, {**status, "val_accuracy": None}).count("val_accuracy") == 0


def test_another_state_is_said_with_its_reason():
    status = {"name": "a/1", "state": "lost", "message": "its engine\n has ended", "steps_per_second": 5.0}
    assert line(INFO, status) == "a/1  lost  its engine has ended"
    error = {"type": "ValueError", "message": "x" * 900}
    shown = line({}, {"name": "a/1", "state": "failed", "error": error, "message": "other", "epoch": 2})
    assert shown.startswith("a/1  failed  epoch 2  ValueError: xxx") and len(shown) < 250
    assert line(INFO, {"name": "a/1", "state": "training", "message": "old news"}) == "a/1"


def test_a_loop_without_epochs_losses_or_an_end_in_one_line():
    status = {"name": "gan/1", "state": "training", "step": 1234, "epoch": 0, "g_loss": 0.5, "d_loss": 2.0, "note": "x"}
    assert line({}, status) == "gan/1  step 1,234  g_loss 0.5  d_loss 2"
    assert line({"total_steps": 5000}, {"name": "a/1", "state": "training", "step": 10}) == "a/1  step 10/5,000"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (1e-3, "1e-3"),
        (0.00123456, "1.23e-3"),
        (0, "0"),
        (0.25, "0.25"),
        (0.123456, "0.1235"),
        (12.345, "12.3"),
        (1234567.0, "1,234,567"),
        (float("nan"), "nan"),
        (float("-inf"), "-inf"),
        (True, "True"),
        ("adam", "adam"),
        (-0.5, "-0.5"),
        (-12345.0, "-12,345"),
    ],
)
def test_numbers_as_somebody_would_type_them(value, shown):
    assert number(value) == shown
