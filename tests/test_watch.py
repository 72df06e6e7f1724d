"""Any loop watched: what is yielded on, what a notebook and a terminal show, clicks, loops of other frameworks."""

from __future__ import annotations

import base64
import contextvars
import inspect
import io
import os
import pty
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kernels import Kernel
from softmax_model import SoftmaxModel

import h3lab as h3
from h3lab.errors import MissingExtra, UnknownName, UsageError
from h3lab.running import local as local_module
from h3lab.running.local import LocalRun
from h3lab.ui.follower import follow


def wait_for(condition: Callable[[], Any], what: str = "", timeout_seconds: float = 15.0) -> Any:
    deadline = time.monotonic() + timeout_seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {timeout_seconds:g} s: {what or condition}"
        time.sleep(0.01)
    return value


def loop(records: int = 5) -> Iterator[dict[str, Any]]:
    for number in range(records):
        yield {"loss": 1 / (number + 1)}


def training(**settings: Any) -> Any:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(64, 4))
    return h3.train(h3.Actor("local", SoftmaxModel()), (X, (X[:, 0] > 0).astype(int)), **{"epochs": 2, **settings})


@pytest.fixture
def shown() -> Iterator[Callable[[LocalRun], Any]]:
    """``shown(run)`` → its follower, as a notebook's card has one."""
    followers = []

    class View:
        watching = True

        def news(self, follower: Any, drop_from: int | None) -> None:
            pass

    view = View()

    def make(run: LocalRun) -> Any:
        follower = follow(run)
        follower.join(view)
        followers.append(follower)
        return follower

    yield make
    for follower in followers:
        follower.leave(view)
        wait_for(lambda follower=follower: not follower.alive, "its thread ends")


# ---- What is yielded on -----------------------------------------------------------------------------------


def test_records_are_yielded_with_the_axes_that_they_lack():
    records = list(h3.watch([{"loss": 0.5}, {"loss": 0.4, "epoch": 2}, {"step": 7, "loss": 0.3}, {"loss": 0.2}]))
    assert [(r["step"], r["epoch"], r["loss"]) for r in records] == [(1, 0, 0.5), (2, 2, 0.4), (7, 2, 0.3), (8, 2, 0.2)]
    assert all(0 <= a["seconds"] <= b["seconds"] for a, b in zip(records, records[1:]))


def test_records_that_have_all_axes_are_yielded_as_they_are():
    given = [{"step": s, "epoch": 1, "seconds": s / 10, "loss": object()} for s in (1, 2)]
    assert all(a is b for a, b in zip(h3.watch(given), given))


def test_a_training_is_yielded_record_by_record_with_the_same_bits():
    alone = [{n: v for n, v in record.items() if n != "seconds"} for record in training()]
    watched = [{n: v for n, v in record.items() if n != "seconds"} for record in h3.watch(training())]
    assert watched == alone and len(alone) == 2


def test_a_step_that_falls_goes_on_in_the_curves(shown: Callable[[LocalRun], Any]):
    run = LocalRun("epochs")
    follower = shown(run)
    for epoch in (1, 2, 3):
        for step in range(10):
            run.record({"epoch": epoch, "step": step, "loss": epoch + step / 10})
        run.record({"epoch": epoch, "step": 9, "val_loss": 1.0 * epoch})  # of the same step, so at its place
    run.end("finished")
    follower.catch_up()
    assert follower.columns["loss"].steps.tolist() == list(range(30))
    assert follower.columns["val_loss"].steps.tolist() == [9, 19, 29]


def test_numbers_of_numpy_and_torch_have_curves_and_text_has_none(shown: Callable[[LocalRun], Any]):
    import torch

    run = LocalRun("numbers")
    follower = shown(run)
    weight = torch.ones(1, requires_grad=True)
    for _ in range(3):
        run.record(
            {"a": np.float32(0.5), "b": torch.tensor(2.0), "c": (weight * 3).sum(), "d": np.zeros(3), "e": "text"}
        )
    run.end("finished")
    follower.catch_up()
    assert {name: follower.columns.last(name) for name in follower.columns} == {"a": 0.5, "b": 2.0, "c": 3.0}


@pytest.mark.parametrize(
    ("records", "said"),
    [
        ([0.5], r"0.5 came as a record, a float; expected a dict of metrics, for example \{'loss': 0.1\}"),
        ([{"step": "one", "loss": 1.0}], "step='one'.*expected numbers"),
    ],
)
def test_what_is_no_record_is_said(records: Any, said: str):
    with pytest.raises(UsageError, match=said):
        list(h3.watch(records))


def test_what_cannot_be_watched_is_said():
    for wrong in (5, {"loss": 1.0}, None, b"x"):
        with pytest.raises(UsageError, match=r"came; expected an iterable of dicts, or runs or their names"):
            h3.watch(wrong)
    with pytest.raises(UsageError, match="misses 'records'"):
        h3.watch()
    with pytest.raises(UnknownName, match="Did you mean 'name'"):
        h3.watch([], nam="x")


def test_a_loop_is_named_after_what_makes_it():
    assert h3.watch(loop()).name == "loop" and h3.watch(training()).name == "local"
    assert h3.watch([{}]).name == h3.watch({"loss": 1.0} for _ in "ab").name == "loop"
    assert h3.watch(loop(), "gan").name == h3.watch(loop(), name="gan").name == "gan"


def test_watch_says_what_it_does():
    assert "h3.watch(run_a, run_b)" in repr(h3.watch) and "Live curves of any loop" in (inspect.getdoc(h3.watch) or "")
    assert list(inspect.signature(h3.watch).parameters) == ["records", "runs", "name", "settings"]
    assert {"keras", "lightning", "huggingface"} <= set(dir(h3.watch))
    assert "for record in h3.watch(" in repr(h3.watch(loop()))


def test_watching_imports_no_heavy_library():
    code = "import sys, h3lab as h3; list(h3.watch([{'loss': 1.0}])); print([n for n in {!r} if n in sys.modules])"
    heavy = ["torch", "sklearn", "bokeh", "matplotlib", "ipywidgets", "pandas", "keras", "lightning", "transformers"]
    script = code.replace("{!r}", repr(heavy))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


# ---- In a terminal, in a pipe -----------------------------------------------------------------------------


def test_a_pipe_gets_the_last_line_however_the_loop_ends(capsys: pytest.CaptureFixture[str]):
    for record in h3.watch(loop(), "breaks"):
        if record["step"] == 3:
            break
    with pytest.raises(ZeroDivisionError):
        for _ in h3.watch(loop(), "raises"):
            1 / 0  # noqa: B018

    def fails() -> Iterator[dict[str, float]]:
        yield {"loss": 1.0}
        raise ValueError("no more rows")

    with pytest.raises(ValueError, match="no more rows"):
        list(h3.watch(fails()))
    list(h3.watch(loop(), "whole"))
    assert capsys.readouterr().out.splitlines() == [
        "breaks  stopped  step 3  loss 0.3333",
        "raises  stopped  step 1  loss 1",
        "fails  failed  step 1  loss 1  ValueError: no more rows",
        "whole  finished  step 5  loss 0.2",
    ]


def test_a_terminal_has_one_line_that_changes():
    code = "import time, h3lab as h3\nfor r in h3.watch({'loss': 1 / s} for s in range(1, 60)): time.sleep(0.01)"
    master, slave = pty.openpty()
    process = subprocess.Popen([sys.executable, "-c", code], stdout=slave, stderr=subprocess.STDOUT)
    os.close(slave)
    told = b""
    while True:
        try:
            data = os.read(master, 4096)
        except OSError:  # the terminal's other end has been closed
            break
        if not data:
            break
        told += data
    os.close(master)
    assert process.wait(30) == 0
    *changes, last, rest = told.decode().replace("\r\n", "\n").replace("\r\x1b[K", "\n").split("\n")
    assert last == "loop  finished  step 59  loss 0.01695" and rest == ""
    assert 3 <= len([line for line in changes if "steps/s" in line]) <= 12 and told.count(b"\n") == 1


# ---- Clicks -----------------------------------------------------------------------------------------------


class Click:
    """A control of a run, clicked while its loop runs in this thread, as ``perform`` does."""

    def __init__(self, run: Any, verb: str, **values: Any) -> None:
        from h3lab.ui.controls import perform

        self.answers: list[tuple[str, str, str]] = []
        perform(run, verb, values, lambda *answer: self.answers.append(answer), contextvars.copy_context())
        wait_for(lambda: run._wishes or self.answers, "the click is on its way")


def runs_of(monkeypatch: pytest.MonkeyPatch) -> list[LocalRun]:
    """The runs that ``h3.watch`` begins from now on."""
    began: list[LocalRun] = []
    opened = LocalRun.open
    monkeypatch.setattr(LocalRun, "open", lambda run: (began.append(run), opened(run))[1])
    return began


def test_stop_ends_the_loop_as_if_nothing_more_came(monkeypatch: pytest.MonkeyPatch):
    runs, closed, seen = runs_of(monkeypatch), [], []

    def endless() -> Iterator[dict[str, float]]:
        try:
            while True:
                yield {"loss": 1.0}
        finally:
            closed.append(True)

    for record in h3.watch(endless()):
        seen.append(record["step"])
        if record["step"] == 10:
            click = Click(runs[0], "stop")
    wait_for(lambda: click.answers == [("break", "", "")])
    assert seen == list(range(1, 11)) and closed and runs[0].state["state"] == "stopped"


def test_pause_holds_before_the_next_step(monkeypatch: pytest.MonkeyPatch):
    runs, resumed = runs_of(monkeypatch), []

    def later(run: LocalRun) -> None:
        wait_for(lambda: run.state["state"] == "paused")
        resumed.append(run.step)
        run.resume()

    for record in h3.watch(loop(20)):
        if record["step"] == 7:
            Click(runs[0], "pause")
            thread = threading.Thread(target=later, args=(runs[0],))
            thread.start()
        if record["step"] == 8:
            assert resumed == [7]
    thread.join()
    assert runs[0].state["state"] == "finished"


def test_settings_of_a_training_change_between_two_steps(monkeypatch: pytest.MonkeyPatch):
    runs, alone = runs_of(monkeypatch), training(epochs=6)
    clicks, rates = [], []
    for record in h3.watch(alone):
        rates.append(alone.settings.lr)
        if record["step"] == 2:
            clicks.append(Click(runs[0], "set", lr=0.25))
        if record["step"] == 4:
            clicks.append(Click(runs[0], "set", lr="fast"))
    assert len(set(rates[:2])) == 1 and set(rates[2:]) == {0.25}
    wait_for(lambda: all(click.answers for click in clicks))
    assert clicks[0].answers == [("training.settings = training.settings.replace(lr=0.25)", "", "")]
    assert "lr='fast' came; expected a number" in clicks[1].answers[0][1]
    with pytest.raises(UnknownName):
        from h3lab.ui.controls import perform

        perform(runs[0], "snapshot", {}, lambda *a: None, contextvars.copy_context())


def test_a_loop_of_a_lab_is_watched_here_with_its_settings(monkeypatch: pytest.MonkeyPatch):
    def loop(settings: Any, state: Any = None) -> Iterator[Any]:
        while True:
            yield {"lr": settings.lr}
            yield h3.snapshot({"lr": settings.lr})

    runs, watched, rates = runs_of(monkeypatch), h3.watch(loop, lr=0.5), []
    for record in watched:
        rates.append(record["lr"])
        if record["step"] == 2:
            click = Click(runs[0], "set", lr=0.25)
        if record["step"] == 4:
            stop = Click(runs[0], "stop")
    wait_for(lambda: click.answers and stop.answers)
    assert rates == [0.5, 0.5, 0.25, 0.25] and watched.name == "loop"
    assert click.answers == [("", "", "")] and stop.answers == [("break", "", "")]
    assert next(iter(watched))["step"] == 1, "each time anew"
    with pytest.raises(UsageError, match="has no yield"):
        h3.watch(without_yield, lr=1)


def without_yield(settings: Any) -> dict[str, float]:
    return {"loss": settings.lr}


def test_snapshots_of_a_plain_generator_are_no_records():
    found = list(h3.watch(item for item in ({"loss": 1.0}, h3.snapshot({"w": 1}), {"loss": 2.0})))
    assert [(record["step"], record["loss"]) for record in found] == [(1, 1.0), (2, 2.0)]


def test_settings_replaced_in_the_loop_are_marked(monkeypatch: pytest.MonkeyPatch, shown: Callable[[LocalRun], Any]):
    runs, alone = runs_of(monkeypatch), training(epochs=4)
    for record in h3.watch(alone):
        if record["step"] == 1:
            follower = shown(runs[0])
        if record["step"] == 2:
            alone.settings = alone.settings.replace(lr=0.125)
    follower.catch_up()
    assert [(mark["step"], mark["text"].partition("→")[2]) for mark in follower.story.marks] == [(2, " 0.125")]


def test_stop_keeps_what_a_training_has_learned(monkeypatch: pytest.MonkeyPatch):
    runs, alone = runs_of(monkeypatch), training(epochs=50)
    for record in h3.watch(alone):
        if record["step"] == 3:
            Click(runs[0], "stop")
    assert alone.stopped_at == 3 and alone.actor.predict(np.zeros((1, 4))).shape == (1,)


def test_a_click_on_a_loop_that_has_ended_changes_nothing():
    run = LocalRun("over").open()
    run.record({"loss": 1.0})
    run.end("finished")
    run.end("failed", ValueError("twice"))
    assert (run.pause(), run.stop(), run.state["state"]) == ("finished", "finished", "finished")


def test_a_click_that_the_loop_does_not_come_by_for_is_recorded(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(local_module, "PATIENCE_SECONDS", 0.0)
    assert LocalRun("slow").stop().startswith("recorded")


# ---- Memory -----------------------------------------------------------------------------------------------


def test_records_do_not_pile_up_beyond_the_columns(shown: Callable[[LocalRun], Any]):
    run = LocalRun("million")
    follower = shown(run)
    for number in range(100_000):
        run.record({"loss": 1.0, "step": number, "note": "text", "epoch": 1, "seconds": 0.0})
        assert len(run._fresh) <= local_module.MOST_WAITING
    run.end("finished")
    follower.catch_up()
    assert follower.columns.sizes() == {"loss": 100_000} and run._fresh == []


def test_what_nobody_takes_is_not_kept():
    run = LocalRun("unseen")
    for _ in range(local_module.MOST_WAITING + 10):
        run.record({"loss": 1.0})
    assert len(run._fresh) == 10


# ---- In a notebook ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shared_kernel() -> Iterator[Kernel]:
    opened = Kernel()
    opened.run("import threading, time, h3lab as h3\nfrom h3lab.ui import display\n" + inspect.getsource(loop).replace(
        "Iterator[dict[str, Any]]", "object"))  # fmt: skip
    yield opened
    opened.close()


@pytest.fixture
def kernel(shared_kernel: Kernel) -> Kernel:
    """One for all: its messages forgotten, its loops ended."""
    shared_kernel.messages.clear()
    return shared_kernel


THREADS = "[t.name for t in threading.enumerate() if t.name.startswith('h3lab-follow')]"


def settled(kernel: Kernel) -> str:
    """The line of the last picture in the cell; it has one, and no thread is left."""
    last = kernel.of("update_display_data")[-1]["content"]["data"]
    assert base64.b64decode(last["image/png"]).startswith(b"\x89PNG")
    wait_for(lambda: kernel.value(THREADS) == [], "no thread is left")
    return str(last["text/plain"])


def test_a_cell_shows_its_loop_and_keeps_the_last_picture(kernel: Kernel):
    cell = kernel.run("for record in h3.watch(loop(2000)): pass")
    shown = kernel.of("display_data")
    assert len(shown) == 2 and 'class="h3lab-run' in shown[0]["content"]["data"]["text/html"]
    assert not kernel.of("stream", "error")
    assert settled(kernel) == "loop  finished  step 2,000  loss 5e-4"
    pictures = kernel.of("update_display_data")
    assert len(pictures) == 1 and pictures[0]["parent_header"]["msg_id"] == cell


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ("for record in h3.watch(loop()):\n    if record['step'] == 2: break", "loop  stopped  step 2  loss 0.5"),
        ("for record in h3.watch(loop()):\n    1 / 0", "loop  stopped  step 1  loss 1"),
        ("def f():\n    kept = iter(h3.watch(loop()))\n    for r in kept: 1 / 0\nf()",
         "loop  failed  step 1  loss 1  ZeroDivisionError: division by zero"),
        ("kept = iter(h3.watch(loop()))\nnext(kept)", "loop  stopped  step 1  loss 1"),
    ],
    ids=["break", "exception", "exception with the iterator held", "never finished"],
)  # fmt: skip
def test_a_loop_that_is_left_leaves_a_settled_picture_and_no_thread(kernel: Kernel, source: str, line: str):
    kernel.run(source, fails="1 / 0" in source)
    assert settled(kernel) == line
    kernel.run("list(kept) if 'kept' in globals() else None; kept = []")  # what is held goes on, unseen
    assert not kernel.of("stream") or "Traceback" not in str(kernel.of("stream"))


def test_a_cell_that_is_executed_again_keeps_one_card(kernel: Kernel):
    """Jupyter says which cell it is; a program that sends cells without that keeps some twenty."""
    kernel.run("before = len(display._exhibits); display._place = lambda: 'a cell'")
    for _ in range(3):
        kernel.run("for record in h3.watch(loop()): pass")
    kernel.run("for _ in range(2):\n    for record in h3.watch(loop()): pass")
    assert kernel.value("len(display._exhibits) - before") == 2, "the two of the last execution"
    assert kernel.value("list(display._exhibits.values())[-1].followers[0].past[0]") == "before"


def test_a_busy_loop_is_told_a_few_times_a_second(kernel: Kernel):
    """With a page that looks on: the news that leave the kernel while its cell computes, and that they are all."""
    kernel.run(
        textwrap.dedent("""
        def busy(seconds):
            begin = time.perf_counter()
            for number in range(int(seconds * 1000)):
                while time.perf_counter() < begin + number / 1000: pass
                yield {"loss": 1.0}
        for record in h3.watch(busy(2.0)):
            if record["step"] == 1:
                (exhibit,) = [e for e in display._exhibits.values() if e.runs[0].name == "busy"]
                exhibit.panel._silent_at = time.monotonic() + 60
        """)
    )
    data = [message["content"]["data"] for message in kernel.of("comm_msg")]
    news = [content for each in data if (content := each.get("content", {})).get("type") == "news"]
    assert 4 <= len(news) <= 22
    last, steps = news[-1], kernel.value("record['step']")
    assert last["head"]["state"] == "finished" and last["series"] == [] or last["series"][0]["size"] == steps
    assert kernel.value("exhibit.followers[0].columns.sizes()") == {"loss": steps}


# ---- Overlays ---------------------------------------------------------------------------------------------


def test_runs_and_names_are_shown_and_a_list_of_them_too(capsys: pytest.CaptureFixture[str]):
    from paced import Pace

    for name in ("alone", "taught"):
        pace = Pace(name, rate=1.0, steps=1)
        pace.writer.record({"step": 1, "epoch": 1, "seconds": 0.1, "loss": 0.5})
        pace.end("finished")
    run = h3.attach("alone")
    assert h3.watch(run, "taught/1") is h3.watch([run, "taught"]) is None
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["alone/1", "taught/1"] * 2
    from h3lab.errors import RunNotFound

    with pytest.raises(RunNotFound):
        h3.watch("untold")


def columns_of(**series: list[float]) -> Any:
    from h3lab.ui.columns import Columns

    columns = Columns()
    for name, values in series.items():
        columns.extend({"step": step, name: value} for step, value in enumerate(values, 1))
    return columns


def test_runs_are_compared_by_validation_where_each_has_it():
    from h3lab.ui.picture import compared_kind, line_of

    taught = columns_of(loss=[9.0, 8.0], val_loss=[0.5, 0.4], val_accuracy=[0.1])
    alone, bare = columns_of(loss=[1.0], val_loss=[0.6]), columns_of(loss=[0.7])
    assert compared_kind("loss", [taught, alone]) == "validation"
    assert compared_kind("loss", [taught, bare]) == "train", "a loss is compared with one of its kind"
    assert compared_kind("accuracy", [taught, bare]) == "validation"
    assert line_of("loss", taught, "validation")[1].tolist() == [0.5, 0.4]
    assert line_of("loss", bare, "validation")[1].tolist() == [0.7]


def test_a_run_of_one_record_has_a_point_in_every_picture():
    from PIL import Image, ImageColor

    from h3lab.ui.curves import RUNS, TRAIN
    from h3lab.ui.headline import headline
    from h3lab.ui.picture import overlay, png

    columns = columns_of(reward=[0.5])
    head = headline({"name": "one"}, {"state": "finished"}, columns, {"step": 1, "epoch": 0}, None)
    for picture, color in ((png(head, columns, []), TRAIN[0]), (overlay([head] * 2, [columns] * 2), RUNS[1])):
        seen = np.asarray(Image.open(io.BytesIO(picture)).convert("RGB")).astype(int)[110:]  # below the legend
        near = np.abs(seen - ImageColor.getrgb(color)).max(axis=2) < 60
        assert near.sum() >= 8, f"a dot of {color}"


# ---- Loops of other frameworks ----------------------------------------------------------------------------

KERAS = """
import os; os.environ["KERAS_BACKEND"] = "torch"
import keras, numpy as np
X = np.random.default_rng(0).random((96, 4), "float32"); y = (X.sum(1) > 2).astype("int64")
model = keras.Sequential([keras.layers.Dense(2, activation="softmax")], name="net")
model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
model.fit(X, y, batch_size=16, epochs=EPOCHS, validation_data=(X, y), verbose=0, callbacks=[h3.watch.keras(), *MORE])
"""
LIGHTNING = """
import warnings; warnings.simplefilter("ignore")
import logging, torch, lightning.pytorch as pl
from torch.nn.functional import cross_entropy
class Net(pl.LightningModule):
    def __init__(self):
        super().__init__(); self.net = torch.nn.Linear(4, 2)
    def training_step(self, batch, index):
        loss = cross_entropy(self.net(batch[0]), batch[1]); self.log("train/acc", 0.5); return loss
    def validation_step(self, batch, index):
        self.log("val_loss", cross_entropy(self.net(batch[0]), batch[1])); self.log("other", 0.25)
    def configure_optimizers(self): return torch.optim.Adam(self.parameters())
X = torch.rand(96, 4); rows = torch.utils.data.DataLoader(
    torch.utils.data.TensorDataset(X, (X.sum(1) > 2).long()), batch_size=16)
quiet = dict(enable_progress_bar=False, logger=False, enable_checkpointing=False, enable_model_summary=False)
trainer = pl.Trainer(max_epochs=EPOCHS, accelerator="cpu", callbacks=[h3.watch.lightning(), *MORE], **quiet)
trainer.fit(Net(), rows, rows)
"""
TRANSFORMERS = """
import torch
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments
sizes = dict(vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
rows = [{"input_ids": torch.full((4,), i % 20), "labels": torch.tensor(i % 2)} for i in range(48)]
options = TrainingArguments("FOLDER", num_train_epochs=EPOCHS, per_device_train_batch_size=8, logging_steps=2,
    eval_strategy="epoch", save_strategy="no", report_to=[], use_cpu=True, disable_tqdm=True)
trainer = Trainer(BertForSequenceClassification(BertConfig(**sizes)), options, train_dataset=rows, eval_dataset=rows,
    callbacks=[h3.watch.huggingface(), *MORE])
trainer.train()
"""
FRAMEWORKS = {"keras": KERAS, "lightning": LIGHTNING, "transformers": TRANSFORMERS}
#: A callback that clicks at the third step: what it stands on, and which event it takes.
CLICKS = {
    "keras": ("import keras; from keras.callbacks import Callback", "on_train_batch_end"),
    "lightning": ("from lightning.pytorch import Callback", "on_train_batch_end"),
    "transformers": ("from transformers import TrainerCallback as Callback", "on_step_end"),
}
CLICK = """
import os; os.environ["KERAS_BACKEND"] = "torch"
IMPORT
from threading import Thread
class Click(Callback):
    count = 0
    def EVENT(self, *given, **more):
        self.count += 1
        if self.count == 3:
            ACTION
run_of = lambda: list(display._exhibits.values())[-1].runs[0]
def stop():
    run = run_of()
    Thread(target=run.stop).start()
    while not run._wishes: time.sleep(0.01)
"""


def program(framework: str, epochs: int, more: str, folder: Path) -> str:
    source = FRAMEWORKS[framework].replace("EPOCHS", str(epochs)).replace("MORE", more)
    return source.replace("FOLDER", str(folder))


def clicking(framework: str, action: str) -> str:
    imports, event = CLICKS[framework]
    return CLICK.replace("IMPORT", imports).replace("EVENT", event).replace("ACTION", action)


@pytest.fixture(params=list(FRAMEWORKS))
def framework(request: pytest.FixtureRequest) -> str:
    if find_spec(request.param) is None:
        pytest.skip(f"{request.param} is not installed")
    return str(request.param)


def test_a_loop_of_a_framework_has_the_same_curves(kernel: Kernel, framework: str, tmp_path: Path):
    kernel.run(program(framework, 3, "[]", tmp_path))
    shown = settled(kernel)
    assert "  finished  epoch 3/3  loss " in shown, shown
    columns = "list(display._exhibits.values())[-1].followers[0].columns"
    sizes = kernel.value(f"{columns}.sizes()")
    assert sizes["loss"] == (9 if framework == "transformers" else 18), "a point each time it logs, or each batch"
    assert sizes["val_loss"] == 3
    assert kernel.value(f"{columns}['val_loss'].steps.tolist()") == [6.0, 12.0, 18.0]
    if framework == "keras":
        assert sizes["accuracy"] == 18 and sizes["val_accuracy"] == 3
        assert kernel.value("[float(v) for v in model.history.history['val_loss']]") == pytest.approx(
            kernel.value(f"{columns}['val_loss'].values.tolist()")
        )
    if framework == "lightning":
        assert sizes["acc"] == 18 and sizes["val_other"] == 3


def test_stop_ends_the_loop_of_a_framework(kernel: Kernel, framework: str, tmp_path: Path):
    kernel.run(clicking(framework, "stop()"))
    kernel.run(program(framework, 1000, "[Click()]", tmp_path))
    assert "  stopped  epoch 1/1000" in settled(kernel)
    assert kernel.value("run_of().step") in (3, 4)


def test_a_framework_that_fails_leaves_its_cause(kernel: Kernel, framework: str, tmp_path: Path):
    kernel.run(clicking(framework, "raise ValueError('a bad batch')"))
    kernel.run(program(framework, 3, "[Click()]", tmp_path), fails=True)
    assert settled(kernel).endswith("ValueError: a bad batch")


@pytest.mark.parametrize("module", ["keras", "lightning", "transformers"])
def test_a_missing_framework_is_a_pip_line(module: str, monkeypatch: pytest.MonkeyPatch):
    name = {"transformers": "huggingface"}.get(module, module)
    for loaded in [n for n in sys.modules if n.startswith((f"{module}.", "h3lab.frameworks._"))] + [module]:
        monkeypatch.delitem(sys.modules, loaded, raising=False)

    class Absent:
        def find_spec(self, wanted: str, path: Any = None, target: Any = None) -> None:
            if wanted.partition(".")[0] == module:
                raise ModuleNotFoundError(f"No module named {wanted!r}", name=module)

    monkeypatch.setattr(sys, "meta_path", [Absent(), *sys.meta_path])
    with pytest.raises(MissingExtra, match=f"pip install {module}"):
        getattr(h3.watch, name)()
