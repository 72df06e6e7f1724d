"""The screen without a browser: what is read from a run's folder, what is sent to a page, what a notebook keeps."""

import base64
import json
import os
import re
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kernels import Kernel
from paced import DECLARED, Asked, Pace, paced

from h3lab.errors import UnknownName
from h3lab.running import journal
from h3lab.running.folder import RunFolder
from h3lab.running.journal import Reader, Writer
from h3lab.ui import columns as columns_module
from h3lab.ui import reading as reading_module
from h3lab.ui.columns import Columns, binned, extremes, smoothed
from h3lab.ui.controls import perform
from h3lab.ui.follower import Follower, follow
from h3lab.ui.headline import cause, headline
from h3lab.ui.marks import Story, code, number
from h3lab.ui.reading import earlier

STATIC = Path(columns_module.__file__).with_name("static")


def wait_for(condition: Callable[[], Any], what: str = "", timeout_seconds: float = 15.0) -> Any:
    deadline = time.monotonic() + timeout_seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {timeout_seconds:g} s: {what or condition}"
        time.sleep(0.01)
    return value


def followers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("h3lab-follow")]


@pytest.fixture(autouse=True)
def no_follower_is_left() -> Iterator[None]:
    """The general look for leaks sees no daemon threads, and all threads of the screen are daemons."""
    yield
    wait_for(lambda: not followers(), f"these threads end: {followers()}")


def short_run(name: str, steps: int = 100, state: str = "finished") -> RunFolder:
    """A run that has ended."""
    pace = Pace(name, rate=1.0, steps=steps)
    while pace.step < steps:
        pace.step += 1
        pace.writer.record(pace.record())
    pace.end(state)
    return pace.folder


class Listener:
    """Notes what a follower tells."""

    watching = True

    def __init__(self) -> None:
        self.told: list[tuple[float, int | None]] = []

    def news(self, follower: Follower, drop_from: int | None) -> None:
        self.told.append((time.monotonic(), drop_from))


# ---- Columns ----------------------------------------------------------------------------------------------


def test_columns_hold_what_records_say():
    columns = Columns()
    records = [{"step": s, "epoch": 1, "seconds": s / 10, "loss": float(s * s)} for s in range(1, 1001)]
    records[499] |= {"val_loss": 0.5, "note": "text has no curve"}
    for start in range(0, 1000, 7):
        columns.extend(records[start : start + 7])
    assert columns["loss"].steps.tolist() == list(range(1, 1001))
    assert columns["loss"].values.tolist() == [s * s for s in range(1, 1001)]
    assert columns.sizes() == {"loss": 1000, "val_loss": 1} and columns.last("val_loss") == 0.5
    assert columns.last("accuracy") is None


def test_columns_drop_a_step_and_what_follows():
    columns = Columns()
    columns.extend({"step": s, "loss": 1.0} for s in range(1, 11))
    columns.drop_from(4)
    columns.extend({"step": s, "loss": 2.0} for s in range(4, 6))
    assert columns["loss"].steps.tolist() == [1, 2, 3, 4, 5]
    assert columns["loss"].values.tolist() == [1, 1, 1, 2, 2]


def test_a_still_does_not_grow():
    columns = Columns()
    columns.extend({"step": s, "loss": s} for s in range(1, 200))
    still = columns.still()
    columns.extend({"step": s, "loss": s} for s in range(200, 2000))
    assert still["loss"].steps.tolist() == list(range(1, 200))


def test_a_tail_is_steps_and_then_values():
    columns = Columns()
    columns.extend([{"step": 1, "loss": 0.5}, {"step": 2, "loss": float("nan")}, {"step": 3, "loss": 0.25}])
    steps_and_values = np.frombuffer(columns["loss"].tail(1), "<f8")
    np.testing.assert_array_equal(steps_and_values, [2, 3, np.nan, 0.25])


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a busy machine is no error
@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=500), st.integers(1, 40))
def test_bins_keep_the_extremes_and_the_mean(values: list[float], bins: int):
    columns = Columns()
    columns.extend({"step": s, "loss": v} for s, v in enumerate(values))
    steps, means = binned(columns["loss"], bins)
    assert len(steps) <= bins and np.all(np.diff(steps) > 0)
    width = -(-len(values) // bins)
    np.testing.assert_allclose(means, [np.mean(values[i : i + width]) for i in range(0, len(values), width)], atol=1e-6)
    _, seen = extremes(columns["loss"], bins)
    assert seen.max() == max(values) and seen.min() == min(values)


def test_smoothing_is_unbiased_and_steps_over_nan():
    np.testing.assert_allclose(smoothed(np.full(50, 3.0)), 3.0)
    result = smoothed(np.array([1.0, np.nan, 1.0, np.inf, 1.0]))
    np.testing.assert_array_equal(np.isnan(result), [False, True, False, True, False])
    np.testing.assert_allclose(result[[0, 2, 4]], 1.0)


# ---- Words ------------------------------------------------------------------------------------------------


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_is_written_as_typed_and_means_the_same(value: float):
    assert eval(number(value)) == pytest.approx(value, rel=1e-11)


def test_code_is_what_somebody_would_type():
    assert (
        code("set", {"lr": 1e-4, "mode": "fast", "on": True, "k": 3}) == "run.set(lr=1e-4, mode='fast', on=True, k=3)"
    )
    assert code("set", {"lr": 0.5, "soft": 1.0}) == "run.set(lr=0.5, soft=1.0)"
    assert code("pause", {}) == "run.pause()"


def test_a_story_marks_what_somebody_steered():
    story = Story({"lr": 1e-3})
    for event in (
        {"event": "attempt", "attempt": 1, "from_step": 1},
        {"event": "snapshot", "step": 100},
        {"event": "set", "control": 1, "step": 150, "values": {"lr": 1e-4}},
        {"event": "snapshot", "step": 200},
        {"event": "something of tomorrow", "step": 210},
    ):
        story.tell(event)
    assert [(mark["step"], mark["kind"], mark["text"]) for mark in story.marks] == [
        (150, "set", "lr 1e-3 → 1e-4"),
        (200, "snapshot", ""),  # the newest alone: it is the one that a run comes back from
    ]
    assert story.values == {"lr": 1e-4}
    assert story.last == {"code": "run.set(lr=1e-4)", "note": "took effect at step 150"}
    story.tell({"event": "attempt", "attempt": 2, "from_step": 120})
    assert [(mark["step"], mark["kind"]) for mark in story.marks] == [(120, "attempt")]


def test_what_cannot_be_typed_is_told_in_words():
    story = Story({"lr": 0.1}, {"pause": "", "set": "", "stop": "break"})
    for event, told in (
        ({"event": "pause", "control": 1, "step": 5}, {"code": "", "note": "paused at step 5"}),
        ({"event": "set", "control": 2, "step": 6, "values": {"lr": 0.2}}, {"code": "", "note": "lr=0.2 at step 6"}),
        ({"event": "stop", "control": 3, "step": 7}, {"code": "break", "note": "took effect at step 7"}),
    ):
        story.tell(event)
        assert story.last == told


def test_a_headline_says_it_all():
    columns = Columns()
    last = {"step": 60, "epoch": 3, "loss": 0.5, "accuracy": 0.7, "val_loss": 0.6, "val_accuracy": 0.8}
    columns.extend([last])
    info = {"name": "digits", "number": 3, "epochs": 20, "total_steps": 400, "ranks": 2}
    head = headline(info, {"state": "training", "slots": ["slot0", "slot1"]}, columns, last, 34.0)
    assert (head["metric"], head["value"], head["left"], head["place"]) == ("val_accuracy", 0.8, 10.0, "slot0, slot1")
    assert (head["loss_name"], head["loss"], head["val_loss"]) == ("loss", 0.5, 0.6)
    assert head["elsewhere"] == 'h3.attach("digits")'
    json.dumps(head, allow_nan=False)


def test_a_headline_of_a_loop_with_two_losses_and_no_end():
    columns = Columns()
    columns.extend([{"step": 60, "g_loss": 0.5, "d_loss": 0.7}])
    info = {"name": "gan", "local": True, "epochs": None, "total_steps": None}
    head = headline(info, {"state": "training"}, columns, {"step": 60, "epoch": 0}, 34.0)
    told = {name: head[name] for name in ("loss_name", "loss", "metric", "value", "left", "rate", "place", "elsewhere")}
    assert list(told.values()) == ["g_loss", 0.5, "d_loss", 0.7, None, 34.0, "local", ""]


@pytest.mark.parametrize("state", ["queued", "starting", "paused", "lost", "finished", "stopped", "failed"])
def test_only_a_training_run_has_a_speed(state: str):
    head = headline({"name": "a", "total_steps": 10}, {"state": state}, Columns(), None, 5.0)
    assert head["rate"] is None and head["left"] is None


def test_a_diverged_loss_is_shown_and_is_json():
    columns = Columns()
    columns.extend([{"step": 1, "loss": float("nan")}])
    head = headline({"name": "a"}, {"state": "failed"}, columns, {"step": 1, "epoch": 1}, None)
    assert head["loss"] == "nan"
    json.dumps(head, allow_nan=False)


def test_a_cause_is_the_line_that_says_what_failed():
    text = "Traceback (most recent call last):\n  File 'a', line 1\nValueError: bad label 7\nknown: 0..2\n"
    assert cause({"error": text})["cause"] == "ValueError: bad label 7"
    error = {"rank": 1, "type": "ValueError", "message": "bad label 7", "traceback": text}
    assert cause({"error": error}) == {"cause": "rank 1: ValueError: bad label 7", "traceback": text.strip()}
    assert cause({}) == {"cause": "", "traceback": ""}


# ---- Follower ---------------------------------------------------------------------------------------------


def test_a_follower_has_every_record_and_stops_at_the_end():
    with paced("followed", rate=2000, steps=3000) as folder:
        follower, listener = follow(folder), Listener()
        follower.join(listener)
        wait_for(lambda: not follower.alive, "the follower ends with its run")
    reader = Reader(folder.journal)
    reader.poll()
    assert [record["step"] for record in reader.records] == list(range(1, 3001))
    assert follower.columns["loss"].steps.tolist() == list(range(1, 3001))
    assert follower.columns["loss"].values.tolist() == [record["loss"] for record in reader.records]
    assert follower.head()["state"] == "finished"
    gaps = np.diff([at for at, _ in listener.told])
    assert (gaps > 0.09).mean() > 0.8, f"the screen changes about 10 times a second, not more: {gaps}"


def test_a_follower_drops_what_a_new_attempt_repeats():
    folder = RunFolder.claim("comes-back")
    folder.write_info(name="comes-back", number=1)
    follower, listener = Follower(folder), Listener()
    with_state = folder.write_state
    with_state("training", attempt=1)
    first = Writer(folder.journal, 1, 1)
    for step in range(1, 101):
        first.record({"step": step, "epoch": 1, "seconds": step / 10, "loss": 1.0})
    first.close()
    follower.join(listener)
    wait_for(lambda: follower.columns.sizes() == {"loss": 100})
    with_state("training", attempt=2)
    second = Writer(folder.journal, 2, 61)
    for step in range(61, 81):
        second.record({"step": step, "epoch": 1, "seconds": step / 10, "loss": 2.0})
    second.close()
    with_state("finished", attempt=2)
    wait_for(lambda: not follower.alive)
    assert follower.columns["loss"].steps.tolist() == list(range(1, 81))
    assert follower.columns["loss"].values.tolist() == [1.0] * 60 + [2.0] * 20
    assert 61 in [drop for _, drop in listener.told]


def test_a_long_journal_is_read_in_pieces(monkeypatch: pytest.MonkeyPatch):
    folder = short_run("long", steps=500)
    monkeypatch.setattr(reading_module, "CHUNK", 300)
    follower = Follower(folder)
    follower.catch_up()
    assert follower.columns["loss"].steps.tolist() == list(range(1, 501))


def test_a_limited_read_of_a_journal_loses_no_line():
    folder = short_run("limited", steps=200)
    whole, cursor, pieces = journal.read(folder.journal), journal.Cursor(), []
    while news := journal.read(folder.journal, cursor, 700):
        pieces += news.records
        cursor = news.cursor
    assert pieces == whole.records and cursor == whole.cursor


def test_one_thread_serves_all_views_and_ends_with_the_last():
    with paced("shared", rate=200) as folder:
        follower, views = follow(folder), [Listener(), Listener()]
        assert follow(RunFolder(folder.path)) is follower
        for view in views:
            follower.join(view)
        wait_for(lambda: all(view.told for view in views))
        assert len(followers()) == 1
        follower.leave(views[0])
        told = len(views[1].told)
        wait_for(lambda: len(views[1].told) > told, "the other view is still told")
        follower.leave(views[1])
        wait_for(lambda: not followers(), "the thread ends")
        assert follow(folder) is not follower, "nothing remembers a follower without views"


def test_a_damaged_journal_is_said_and_recovers():
    folder = short_run("damaged", steps=10, state="training")
    segment = folder.journal / "0001.jsonl"
    good = segment.read_bytes()
    segment.write_bytes(good + b"no json\n")
    follower = Follower(folder)
    follower.join(listener := Listener())
    wait_for(lambda: follower.trouble)
    assert "JSON" in follower.head()["trouble"] and listener.told
    segment.write_bytes(good)
    folder.write_state("finished")
    wait_for(lambda: not follower.alive)
    assert follower.trouble == "" and follower.columns.sizes()["loss"] == 10


def test_a_deleted_run_is_said_and_left():
    import shutil

    with paced("deleted", rate=100) as folder:
        follower = follow(folder)
        follower.join(listener := Listener())
        wait_for(lambda: follower.columns.sizes())
    shutil.rmtree(folder.path)
    wait_for(lambda: not follower.alive)
    assert "the run was deleted" in follower.head()["trouble"] and listener.told


def test_the_run_before_is_the_newest_that_has_records():
    short_run("again", steps=50)
    RunFolder.claim("again")
    third = short_run("again", steps=20)
    found = earlier(third)
    assert found is not None
    name, curves = found
    assert name == "again/1" and curves["loss"]["x"] == list(range(1, 51))
    first = RunFolder(third.path.parent / "1")
    assert earlier(first) is None


# ---- Controls ---------------------------------------------------------------------------------------------


def test_a_click_waits_for_nobody_and_is_answered():
    import contextvars

    answers: list[tuple[str, str, str]] = []
    with paced("clicked", rate=500) as folder:
        run = Asked(folder)
        for verb, values in (("set", {"lr": 1e-4}), ("pause", {}), ("resume", {}), ("stop", {})):
            thread = perform(run, verb, values, lambda *a: answers.append(a), contextvars.copy_context())
            assert thread is not threading.current_thread()
            thread.join(20)
        wait_for(lambda: folder.state["state"] == "stopped")
    asked = ["run.set(lr=1e-4)", "run.pause()", "run.resume()", "run.stop()"]
    assert answers == [(code, "", "") for code in asked], "the journal says the steps"
    events = [(e["event"], e.get("control")) for e in journal.read(folder.journal).events]
    assert events[1:] == [("set", 1), ("pause", 2), ("resume", 3), ("stop", 4)]


def test_a_control_of_a_queued_run_is_recorded_and_says_so():
    import contextvars

    from h3lab.running.run import Run

    folder = RunFolder.claim("queued")
    folder.write_info(name="queued", number=1, settings=[setting.to_json() for setting in DECLARED], values={})
    folder.write_state("queued", attempt=0, message="queued behind 'teacher'")
    answers: list[tuple[str, str, str]] = []
    perform(Run(folder), "pause", {}, lambda *a: answers.append(a), contextvars.copy_context()).join(20)
    ((asked, error, note),) = answers
    assert (asked, error) == ("run.pause()", "") and note.startswith("recorded: the run is queued")
    assert folder.controls() == [(1, {"pause": True})]


def test_a_refused_control_is_answered_and_logged():
    import contextvars

    run, answers = Asked(short_run("refuses")), []
    perform(run, "set", {"lr": "fast"}, lambda *a: answers.append(a), contextvars.copy_context()).join(20)
    ((asked, error, _),) = answers
    assert asked == "run.set(lr='fast')" and "expected a number" in error
    logged = (run.folder.logs / "panel.log").read_text()
    assert "Traceback" in logged and "run.set(lr='fast') from the panel" in logged
    with pytest.raises(UnknownName, match="delete"):
        perform(run, "delete", {}, lambda *a: None, contextvars.copy_context())


# ---- Panel ------------------------------------------------------------------------------------------------


class Page:
    """The page's end of a panel's comm."""

    def __init__(self, panel: Any) -> None:
        self.panel, self.sent = panel, []
        panel.comm.publish_msg = self._keep

    def _keep(self, kind: str, data: Any = None, buffers: Any = None, **_: Any) -> None:
        if data and data.get("method") == "custom":
            self.sent.append((data["content"], list(buffers or [])))

    def say(self, kind: str, **content: Any) -> None:
        data = {"method": "custom", "content": {"type": kind, "page": "p1", **content}}
        self.panel.comm.handle_msg({"content": {"data": data}, "buffers": []})

    def got(self, kind: str) -> list[tuple[dict[str, Any], list[bytes]]]:
        return [(content, buffers) for content, buffers in self.sent if content["type"] == kind]

    def curve(self, name: str = "loss") -> dict[int, list[float]]:
        """The points of one run's series as a page would have them now."""
        points: list[tuple[float, float]] = []
        for content, buffers in self.sent:
            parts = content["runs"] if content["type"] == "state" else [content] if content["type"] == "news" else []
            for part, data in zip(parts, buffers):
                offset = 0
                for series in part["series"]:
                    count = series["size"] - series["start"]
                    flat = struct.unpack_from(f"<{2 * count}d", data, offset)
                    offset += 16 * count
                    if series["name"] == name:
                        assert series["start"] <= len(points), "a gap"
                        points[series["start"] :] = zip(flat[:count], flat[count:])
        return dict(points)


@pytest.fixture
def panels() -> Iterator[Callable[..., Page]]:
    from h3lab.ui.panel import Panel

    opened: list[Panel] = []

    def make(*folders: RunFolder) -> Page:
        opened.append(Panel(*map(Asked, folders)))
        return Page(opened[-1])

    yield make
    for panel in opened:
        panel.close()
        panel.close()


def test_a_page_gets_all_points_and_then_what_is_new(panels: Callable[..., Page]):
    with paced("paged", rate=1000, steps=2000) as folder:
        page = panels(folder)
        page.say("hello")
        wait_for(lambda: len(page.curve()) > 500)
        page.say("hello")  # a second browser, or the same one after a gap
        wait_for(lambda: page.curve() and max(page.curve()) == 2000)
        wait_for(lambda: page.sent[-1][0].get("head", {}).get("state") == "finished")
    values = {record["step"]: record["loss"] for record in journal.read(folder.journal).records}
    assert page.curve() == values
    assert len(page.got("state")) == 2 and all(content["page"] == "p1" for content, _ in page.got("state"))


def test_a_page_learns_that_points_were_dropped(panels: Callable[..., Page]):
    folder = short_run("dropped", steps=50, state="training")
    page = panels(folder)
    page.say("hello")
    wait_for(lambda: len(page.curve()) == 50)
    Writer(folder.journal, 2, 31).close()
    folder.write_state("failed", error="ValueError: x")
    wait_for(lambda: list(page.curve()) == list(range(1, 31)))


def test_nothing_is_sent_while_no_page_looks_on(panels: Callable[..., Page], monkeypatch: pytest.MonkeyPatch):
    from h3lab.ui import panel

    monkeypatch.setattr(panel, "PATIENCE_WITHOUT_SUBSHELLS", 0.0)
    with paced("unseen", rate=1000) as folder:
        page = panels(folder)
        page.say("hello")
        follower = page.panel._followers[0]
        seen = follower.columns.sizes().get("loss", 0)
        wait_for(lambda: follower.columns.sizes().get("loss", 0) > seen + 500)
        assert not page.got("news")


def test_a_page_may_only_ask_for_what_a_panel_offers(panels: Callable[..., Page]):
    page = panels(short_run("closed-door"))
    page.say("do", verb="__init__")
    ((answer, _),) = page.got("did")
    assert "there is no control '__init__'" in answer["error"]
    page.say("trouble", text="TypeError: x is undefined")
    assert "TypeError: x is undefined" in (page.panel.runs[0].folder.logs / "panel.log").read_text()


def test_a_click_reaches_the_writer_and_comes_back(panels: Callable[..., Page]):
    with paced("pressed", rate=500) as folder:
        page = panels(folder)
        page.say("hello")
        page.say("do", verb="set", values={"lr": 3e-4})
        wait_for(lambda: page.got("did"))
        assert page.got("did")[0][0]["code"] == "run.set(lr=3e-4)"
        said = {"code": "run.set(lr=3e-4)"}
        wait_for(lambda: [c for c, _ in page.got("news") if said.items() <= (c["head"]["said"] or {}).items()])
        assert page.got("news")[-1][0]["head"]["values"]["lr"] == 3e-4


def test_the_code_and_bokeh_come_on_request_and_not_in_the_state(panels: Callable[..., Page]):
    page = panels(short_run("small"))
    state = page.panel.get_state()
    assert sum(len(str(value)) for value in state.values()) < 6000, "every saved notebook would hold it"
    page.say("code")
    page.say("kit")
    ((code_message, _),), ((kit, (library,)),) = page.got("code"), page.got("kit")
    assert "export { Board }" in code_message["text"] and len(library) > 1_000_000
    assert b"http://cdn" not in library and set(kit["documents"]) == {"linear", "log"}


def test_a_closed_panel_frees_its_thread(panels: Callable[..., Page]):
    with paced("freed", rate=100) as folder:
        page = panels(folder)
        page.say("hello")
        wait_for(lambda: page.got("state"))
        assert len(followers()) == 1
        page.panel.close()
        wait_for(lambda: not followers())


# ---- Names that Python and the page agree on --------------------------------------------------------------


def test_documents_have_every_model_that_the_page_asks_for():
    from h3lab.ui.curves import documents

    script = (STATIC / "plot.js").read_text()
    asked = {
        name.replace("${side}", side)
        for name in re.findall(r"this\.model\([`\"](.*?)[`\"]\)", script)
        for side in ("left", "right")
    }
    asked = {name for name in asked if "${" not in name} | {
        f"left.{name}.line" for name in ("raw", "smooth", "held", "past")
    }
    for kind, made in documents().items():
        names = set(re.findall(r'"name":"((?:left|right|steps)[.\w]*)"', made["document"]))
        missing = asked - names
        assert not missing, f"{kind}: plot.js asks for {missing}"
        assert len(made["roots"]) == 2


def test_colours_of_runs_are_those_of_their_swatches():
    from h3lab.ui.curves import RUNS

    style = (STATIC / "panel.css").read_text()
    assert re.findall(r"\.h3-run\d \{ background: (.*?); \}", style) == [color.lower() for color in RUNS]


def test_every_message_has_someone_who_takes_it():
    from h3lab.ui import panel

    script = (STATIC / "panel.js").read_text() + (STATIC / "boot.js").read_text()
    python = Path(panel.__file__).read_text()
    to_page = set(re.findall(r'"type": "(\w+)"', python))
    assert to_page == set(re.findall(r"\bon_(\w+)\(", script)) | {"code"}
    to_kernel = set(re.findall(r'type: "(\w+)"[ ,}]', script)) - {"text"}
    assert to_kernel == set(re.findall(r'kind == "(\w+)"', python))


def test_every_setting_has_a_control():
    kinds = {setting.to_json()["kind"] for setting in DECLARED}
    assert kinds <= {"float", "int", "bool", "str"}


# ---- Pictures and pages -----------------------------------------------------------------------------------


def test_a_picture_of_a_long_run_is_small():
    from h3lab.ui.display import mimebundle

    bundle = mimebundle(Asked(short_run("hundred-thousand", steps=100_000)))
    picture = base64.b64decode(bundle["image/png"])
    assert picture.startswith(b"\x89PNG") and len(picture) < 50_000
    assert bundle["text/plain"].startswith("hundred-thousand/1  finished  epoch 20/20  loss ")


def test_a_picture_keeps_the_colour_of_a_mark():
    import io

    from PIL import Image, ImageColor

    from h3lab.ui.curves import GOOD, MARK
    from h3lab.ui.picture import png

    columns = Columns()
    noise = np.random.default_rng(0).random(500)
    for s in range(1, 500):  # a picture with so many colours that a palette has to leave some out
        held_out = {"val_loss": 200 / (s + 99), "val_accuracy": s / 500} if s % 20 == 0 else {}
        columns.extend([{"step": s, "loss": 200 / (s + 99) + 0.2 * noise[s], **held_out}])
    head = headline({"name": "a"}, {"state": "paused"}, columns, {"step": 499, "epoch": 1}, None)
    marks = [{"step": 200, "kind": "set", "text": ""}, {"step": 300, "kind": "snapshot", "text": ""}]
    seen = np.asarray(Image.open(io.BytesIO(png(head, columns, marks))).convert("RGB")).reshape(-1, 3).astype(int)
    for color in (MARK, GOOD[0]):
        assert np.abs(seen - ImageColor.getrgb(color)).max(axis=1).min() < 30, f"{color} is in the picture"


@pytest.mark.parametrize("state", ["queued", "failed"])
def test_a_run_without_records_has_a_picture(state: str):
    from h3lab.ui.display import mimebundle

    folder = RunFolder.claim("nothing")
    folder.write_info(name="nothing", number=1)
    folder.write_state(
        state, message="queued behind 'teacher'", error="ValueError: no <rows>" if state == "failed" else ""
    )
    bundle = mimebundle(Asked(folder))
    assert base64.b64decode(bundle["image/png"]).startswith(b"\x89PNG") and state in bundle["text/plain"]


def test_a_picture_copes_with_values_that_are_no_numbers():
    from h3lab.ui.picture import overlay, png

    columns = Columns()
    columns.extend({"step": s, "loss": float("nan") if s > 3 else float("inf"), "accuracy": 1.0} for s in range(1, 9))
    head = headline({"name": "nan"}, {"state": "failed", "error": "x"}, columns, {"step": 8, "epoch": 1}, None)
    assert png(head, columns, []).startswith(b"\x89PNG")
    assert overlay([head, head], [columns, Columns()]).startswith(b"\x89PNG")


def test_a_page_stands_alone(tmp_path: Path):
    import pandas as pd

    from h3lab.ui.page import write_page

    runs = [Asked(short_run("one")), Asked(short_run("two", state="failed"))]
    table = pd.DataFrame({"student": ["<torch>", "sklearn"], "accuracy": [0.93, 0.912345]})
    path = write_page(
        tmp_path / "page.html",
        "A <demo>",
        [("Words", "a & b"), ("Table", table), ("Rows", [{"a": 1}]), ("Curves", runs), ("One", runs[0])],
    )
    text = path.read_text()
    assert "A &lt;demo&gt;" in text and "a &amp; b" in text and "&lt;torch&gt;" in text and "0.9123" in text
    assert "one/1  finished" in text and "two/1  failed" in text and "<!--figure" not in text
    tags = re.findall(r"<(?:script|link|img|iframe)\b[^>]*>", text)
    assert tags and not [tag for tag in tags if "src=" in tag or "href=" in tag], "it fetches nothing"


def test_a_page_without_curves_is_small(tmp_path: Path):
    from h3lab.ui.page import write_page

    assert write_page(tmp_path / "small.html", "t", [("", "text"), ("none", [])]).stat().st_size < 5000


# ---- Displays ---------------------------------------------------------------------------------------------


def test_outside_a_notebook_nothing_is_shown(capsys: pytest.CaptureFixture[str]):
    from h3lab.ui.display import show

    assert show(Asked(short_run("nowhere"))) is False
    assert capsys.readouterr().out == ""


def test_following_a_run_imports_no_heavy_library():
    script = (
        "import sys, h3lab.ui.follower, h3lab.ui.display\n"
        "print([name for name in ('bokeh', 'matplotlib', 'anywidget', 'ipywidgets', 'pandas') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    opened = Kernel()
    yield opened
    opened.close()


SHOW = "from paced import Asked; from h3lab.running.folder import find; run = Asked(find({!r}))"


def test_what_a_run_sends_belongs_to_the_cell_that_shows_it(kernel: Kernel):
    with paced("belongs", rate=1000, steps=3000) as folder:
        shown = kernel.run(SHOW.format(folder.name) + "; run")
        kernel.run("import time; time.sleep(0.5); print('mine')")
        waiting = kernel.run("run.wait()")
    parents = {message["parent_header"]["msg_id"] for message in kernel.of("comm_open", "comm_msg", "display_data")}
    assert parents == {shown}
    pictures = kernel.of("update_display_data")
    assert {message["parent_header"]["msg_id"] for message in pictures} <= {shown, waiting}
    assert [message["content"]["text"] for message in kernel.of("stream")] == ["mine\n"]
    last = pictures[-1]["content"]["data"]
    assert last["text/plain"].startswith("belongs/1  finished  epoch 20/20  loss") and "image/png" in last


def test_a_cell_shows_a_run_once_and_a_kernel_has_one_panel_of_it(kernel: Kernel):
    folder = short_run("once")
    kernel.run(SHOW.format(folder.name) + "; display(run); display(run); run")
    assert len(kernel.of("display_data")) == 2  # where the card is mounted, and the picture
    for _ in range(3):
        kernel.run("display(run)")
    assert len(kernel.of("display_data")) == 8 and len(kernel.of("comm_open")) == 2  # the panel and its layout
    (where,) = {message["content"]["data"].get("text/html") for message in kernel.of("display_data")} - {None}
    assert re.fullmatch(r'<div class="h3lab-run h3lab-[0-9a-f]{32}"></div>', where)
    assert not kernel.of("execute_result", "error")


def test_an_overlay_is_shown_once_and_a_figure_is_not_overfilled(kernel: Kernel):
    first, second = short_run("over"), short_run("lay")
    kernel.run("from paced import Asked; from h3lab.running.folder import find; from h3lab.worlds import view")
    kernel.run(f"view('overlay')([Asked(find({first.name!r})), Asked(find({second.name!r}))])")
    _, picture = kernel.of("display_data")
    assert picture["content"]["data"]["text/plain"].splitlines()[1].startswith("lay/1  finished")
    kernel.run(f"view('overlay')([Asked(find({first.name!r}))] * 9)")
    (said,) = [message["content"]["text"] for message in kernel.of("stream") if message["content"]["name"] == "stdout"]
    assert "9 runs came; a figure has colours for 8" in said


def test_curves_that_nobody_looks_at_are_freed(kernel: Kernel):
    runs = [short_run("many", steps=5).name for _ in range(5)]
    kernel.run(
        "from h3lab.ui import display; display.KEPT = 2; from paced import Asked; from h3lab.running.folder import find"
    )
    for name in runs:
        kernel.run(f"display.show(Asked(find({name!r})))")
    kernel.run("print(len(display._exhibits))")
    assert kernel.of("stream")[-1]["content"]["text"] == "3\n"


def test_a_display_never_raises(kernel: Kernel):
    folder = short_run("broken")
    (folder.path / "run.json").write_text("no json")
    kernel.run(SHOW.format(folder.name) + "; run")
    (text,) = [message["content"]["text"] for message in kernel.of("stream") if message["content"]["name"] == "stdout"]
    assert text.startswith("broken/1: not shown, because JSONDecodeError")


def test_a_notebook_that_a_program_ran_shows_the_last_picture():
    import nbclient
    import nbformat
    from nbconvert import HTMLExporter

    with paced("kept", rate=20_000, steps=100_000) as folder:
        cells = [SHOW.format(folder.name) + "; run", "display(run)", "1 + 1", "run.wait()"]
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
        environment = {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
        client = nbclient.NotebookClient(notebook, timeout=60, extra_arguments=[])
        with client.setup_kernel(env={**os.environ, **environment}):
            for index, cell in enumerate(notebook.cells):
                client.execute_cell(cell, index)
            client.set_widgets_metadata()
    for cell in notebook.cells[:2]:
        where, picture = cell.outputs
        assert set(where.data) == {"text/html", "text/plain"}
        assert picture.data["text/plain"].startswith("kept/1  finished  epoch 20/20  loss")
        assert base64.b64decode(picture.data["image/png"]).startswith(b"\x89PNG")
    assert len(nbformat.writes(notebook)) < 100_000
    html, _ = HTMLExporter().from_notebook_node(notebook)
    assert html.count('src="data:image/png;base64,') == 2
    assert "model not found" not in html and "Loading widget" not in html
