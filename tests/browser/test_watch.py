"""A loop of the kernel's own in a real JupyterLab: painted and steered while its cell is busy; runs in one figure."""

from __future__ import annotations

from collections.abc import Callable

from browsing import Notebook
from paced import Pace

Open = Callable[..., Notebook]

TRAIN = """
import h3lab as h3, torch
from sklearn.datasets import load_digits
X, y = load_digits(return_X_y=True)
net = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10))
for record in h3.watch(h3.train(h3.Actor("digits", h3.TorchModel(net)), (X, y), epochs=100_000, validation=0.2)): pass
"""


def test_a_watched_training_is_painted_and_steered_while_its_cell_is_busy(notebook: Open):
    book = notebook([TRAIN, "1 + 1"])
    book.run(0, wait=False)
    first = book.wait(book.painted, 60, "a first curve while the cell computes")
    book.wait(lambda: book.painted() > first + 100, what="it moves")
    assert book.text("name") == "digits" and book.text("place") == "local" and book.prompt(0) == "[*]:"
    steps = book.steps()
    assert steps == list(range(1, len(steps) + 1)), "every record is in the page"
    assert not book.page.locator("[data-verb=snapshot]").is_visible(), "what makes no sense here is not offered"

    book.type("lr", "1e-4")
    said = "training.settings = training.settings.replace(lr=1e-4)  # took effect at step"
    book.wait(lambda: said in book.text("code"), what="the rate, and the code that does the same")
    book.type("lr", "fast")
    book.wait(lambda: "lr='fast' came; expected a number" in book.text("trouble"), what="the refusal, in red")
    book.click("pause")
    book.wait(lambda: book.text("pill") == "paused" and "# paused at step" in book.text("code"), what="paused")
    book.click("resume")
    held = book.painted()
    book.wait(lambda: book.text("pill") == "training" and book.painted() > held, what="it goes on")
    book.click("stop")
    book.wait(lambda: book.text("pill") == "stopped" and book.prompt(0) == "[1]:", what="the cell has ended")
    book.wait(lambda: "image/png" in book.output(0)[1]["data"], what="the last picture is in the notebook")
    assert "attach" not in book.text("code"), "nobody finds it elsewhere"
    book.run(1)
    assert not book.errors


def test_a_loop_without_losses_epochs_or_end_has_two_figures(notebook: Open):
    loop = (
        "import itertools, time, h3lab as h3\ndef play():\n    for n in itertools.count():\n        time.sleep(0.002)\n"
    )
    loop += "        yield {'reward': n % 50, 'length': n}\nfor record in h3.watch(play()): pass"
    book = notebook([loop])
    book.run(0, wait=False)
    book.wait(lambda: book.painted() > 100, 60, "a curve")
    points = [f"card.plot.model('{side}.smooth').data.x.length" for side in ("left", "right")]
    assert all(book.card(each) for each in points)
    facts = book.page.locator(".h3-facts").inner_text()
    assert "reward" in facts and "steps/s" in facts and "epoch" not in facts and "left" not in facts
    book.click("stop")
    book.wait(lambda: book.prompt(0) == "[1]:", what="the cell has ended")
    assert not book.errors


def ended(name: str, **held_out: float) -> str:
    """A run that has ended after one record."""
    pace = Pace(name, rate=1.0, steps=1)
    pace.writer.record({"step": 1, "epoch": 1, "seconds": 0.1, "loss": 0.5, **held_out})
    pace.end("finished")
    return pace.folder.name


def test_runs_are_compared_by_validation_and_that_can_be_switched(notebook: Open):
    names = [ended("taught", val_loss=0.75), ended("alone", val_loss=0.25)]
    book = notebook([f"import h3lab as h3\nh3.watch({names[0]!r}, {names[1]!r})"])
    book.run(0)
    drawn = "card.plot?.document ? [...card.plot.model('left.single').data.y] : null"
    book.wait(lambda: book.card(drawn) == [0.75, 0.25], what="a dot a run, of its validation")
    assert "val_loss 0.750" in book.page.locator(".h3-facts").first.inner_text(), "and so are the headlines"
    book.page.locator(".h3-plain").first.select_option("train")
    book.wait(lambda: book.card(drawn) == [0.5, 0.5], what="of its training")
    assert "val_loss" not in book.page.locator(".h3-facts").first.inner_text()
    assert not book.errors


def test_a_run_of_one_record_shows_its_point(notebook: Open):
    book = notebook(["import h3lab as h3\nfor _ in h3.watch([{'loss': 0.5}], 'one'): pass"])
    book.run(0)
    drawn = "card.plot?.document ? [...card.plot.model('left.single').data.y] : null"
    book.wait(lambda: book.card(drawn) == [0.5], what="a dot")
    assert book.card("card.plot.steps.start") == 0 and book.card("card.plot.steps.end") == 2
    assert not book.errors
