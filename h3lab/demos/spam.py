"""The whole idea on real data, without a browser: ``python -m h3lab.demos.spam``.

It knows one story: text messages are prepared on the engines, a teacher learns to tell spam there, and two students
learn from a hundred messages alone or from the teacher as well. Everything it does goes through the public face; what a
student gains is measured over several draws of its messages and weights, and said with its uncertainty.
"""

from __future__ import annotations

import argparse
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import h3lab as h3
from h3lab import worlds

if TYPE_CHECKING:
    import pandas as pd

MESSAGES = str(Path(h3.__file__).parent / "data" / "sms_spam-*.parquet")
NUMBERS = ["characters", "words", "digits", "capitals", "currency", "exclamations", "longest_number"]
#: Messages whose labels a student sees (about: they are drawn by key), of some 4,100 that the teacher learned from.
LABELLED = 100
BEGAN = time.monotonic()
#: Metric → whether more of it is better.
METRICS = {"accuracy": True, "negative log-likelihood": False, "calibration error": False}

INTRODUCTION = """Text messages, spam or not. A network learns from all labels. Two students see about a hundred of
them, and learn from those alone, or from the network's answers as well."""
FITTED = "merged: fitted on all parts at once, to what scikit-learn finds on all rows; column: on the whole column."
CAUTION = """Each student is compared with the same student alone, on held-out messages, over seeds that draw the
labels seen as well as the weights. The gain is the mean of these pairs (positive is better) with its 95 % interval; it
is called a gain or a loss only where the interval leaves zero out. One teacher throughout. How many labels a student
sees was chosen with a look at these very messages, so the sizes are optimistic: docs/distillation.md has others."""


def pipeline() -> Any:
    """Two blocks of different kind: the text, and numbers counted from it."""
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.preprocessing import StandardScaler

    return h3.Pipeline(
        h3.Preprocessor("text", "message", TfidfVectorizer(min_df=2, sublinear_tf=True), TruncatedSVD(100)),
        h3.Preprocessor("numbers", NUMBERS, StandardScaler()),
        label="label",
        dtype="float32",
    )


def large_network(spec: Any) -> Any:
    """The teacher's: 256 hidden units."""
    from torch import nn

    return nn.Sequential(nn.Linear(spec.features, 256), nn.ReLU(), nn.Dropout(0.3), nn.Linear(256, spec.outputs))


def small_network(spec: Any) -> Any:
    """A student's: 16 hidden units."""
    from torch import nn

    return nn.Sequential(nn.Linear(spec.features, 16), nn.ReLU(), nn.Linear(16, spec.outputs))


def models() -> dict[str, Any]:
    """Student → its model; an estimator of scikit-learn comes as it is."""
    from sklearn.linear_model import LogisticRegression

    return {"logistic regression": LogisticRegression(max_iter=1000), "small network": h3.TorchModel(small_network)}


def ways(teacher: Any, few: Any, every: Any) -> dict[str, tuple[Any, Any]]:
    """Way of learning → (feed, transfer). The teacher's answers can replace labels, so the last one looks at none."""
    return {
        "alone": (few, None),
        "same messages": (few, h3.Distill(teacher)),
        "every message unlabelled": (every, h3.Distill(teacher, soft=1.0)),
    }


def measures(actor: Any, held_out: Any) -> dict[str, float]:
    """What a classifier's probabilities are worth on held-out rows: the METRICS; calibration error over 15 bins of
    equal width (ECE, Guo et al. 2017)."""
    probabilities = np.asarray(actor.predict_proba(held_out), np.float64)
    codes = np.searchsorted(actor.classes_, held_out.arrays()[1])
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == codes
    bins = np.minimum((confidence * 15).astype(int), 14)
    gaps = [abs(right[bins == b].sum() - confidence[bins == b].sum()) for b in range(15)]
    likelihood = np.log(np.maximum(probabilities[np.arange(len(codes)), codes], 1e-15))
    found = (right.mean(), -likelihood.mean(), sum(gaps) / len(codes))
    return {metric: float(value) for metric, value in zip(METRICS, found, strict=True)}


@dataclass(frozen=True)
class Result:
    """One student of one seed: the way it was taught, its run, and its measures on held-out rows."""

    seed: int
    student: str
    way: str
    run: Any
    measures: dict[str, float]


def gain(metric: str, alone: Sequence[float], taught: Sequence[float]) -> dict[str, Any]:
    """Two ways of learning, one value a seed each and paired by it: their means, the mean ``gain`` (positive is
    better), its 95 % interval from ``low`` to ``high`` (Student's t over the seeds), and the ``verdict``, "gain",
    "loss" or "no gain", by whether that interval leaves zero out."""
    from scipy.stats import t

    a, b = np.asarray(alone, np.float64), np.asarray(taught, np.float64)
    gains = b - a if METRICS[metric] else a - b
    mean = float(gains.mean())
    half = float(t.ppf(0.975, len(gains) - 1) * gains.std(ddof=1) / np.sqrt(len(gains)))
    low, high = mean - half, mean + half
    verdict = "gain" if low > 0 else "loss" if high < 0 else "no gain"
    return {"alone": a.mean(), "taught": b.mean(), "gain": mean, "low": low, "high": high, "verdict": verdict}


def comparison(results: Sequence[Result]) -> pd.DataFrame:
    """Each student and way against the same student alone: a row for each metric, student and way, columns as in
    :func:`gain`."""
    import pandas as pd

    found: dict[tuple[str, str], dict[int, dict[str, float]]] = {}
    for result in results:
        found.setdefault((result.student, result.way), {})[result.seed] = result.measures
    rows = []
    for metric in METRICS:
        for (student, way), taught in found.items():
            if way != "alone":
                pairs = [(found[student, "alone"][seed][metric], taught[seed][metric]) for seed in taught]
                rows.append({"metric": metric, "student": student, "taught on": way, **gain(metric, *zip(*pairs))})
    return pd.DataFrame(rows).set_index(["metric", "student", "taught on"])


def table(compared: pd.DataFrame) -> Iterator[str]:
    """The comparison as lines of text, one metric after another."""
    for heading, rows in by_metric(compared):
        left = rows.apply(lambda column: column.str.ljust(column.str.len().max()))
        yield from ["", heading, *(f"  {line}" for line in left.to_string(index=False, justify="left").splitlines())]


def by_metric(compared: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """The comparison cut by metric, as text: a heading, and the rows with as many digits as they deserve."""
    for metric, rises in METRICS.items():
        rows = compared.loc[metric].reset_index()
        rows["interval (95 %)"] = [f"{low:+.4f} to {high:+.4f}" for low, high in rows[["low", "high"]].to_numpy()]
        for name, form in {"alone": "{:.4f}", "taught": "{:.4f}", "gain": "{:+.4f}"}.items():
            rows[name] = rows[name].map(form.format)
        columns = ["student", "taught on", "alone", "taught", "gain", "interval (95 %)", "verdict"]
        yield f"{metric}: {'more' if rises else 'less'} is better", rows[columns]


def say(line: str) -> None:
    """Print a line with the seconds since this module was imported."""
    print(f"[{time.monotonic() - BEGAN:5.1f} s] {line}", flush=True)


def students(
    lab: Any, teacher: Any, feed: Any, held_out: Any, *, seeds: int = 5, steps: int = 600, labelled: int = LABELLED
) -> Iterator[Result]:
    """Both students, alone and taught, over several seeds, which draw the labelled messages as well as the weights.

    A student network takes ``steps`` steps whatever it learns from, so that nobody wins by training longer. The first
    seed's runs have curves on held-out rows.
    """
    for seed in range(1, seeds + 1):
        # The seed is not that of the split by source: the same draw again would leave nothing to choose.
        _, few = feed.split(labelled / len(feed), seed=seed)
        started = []
        for (way, (rows, transfer)), (student, model) in product(ways(teacher, few, feed).items(), models().items()):
            actor = h3.Actor(f"demo-{student}-{way}".replace(" ", "-"), model, seed=seed)
            settings = {} if student == "logistic regression" else {"epochs": max(1, round(steps / rows.steps(64)))}
            run = lab.train(actor, rows, transfer=transfer, validation=held_out if seed == 1 else None, **settings)
            started.append((student, way, run))
        for student, way, run in started:
            deque(run, maxlen=0)  # follows it to its end; wait() would show a card for each in a notebook
            yield Result(seed, student, way, run, measures(run.actor, held_out))


def tell(lab: Any, options: argparse.Namespace) -> Path:
    """Prepare, teach, distil, measure, and write the page."""
    train, test = h3.read(MESSAGES).split(test=0.2, seed=0)
    feed = lab.prepare(pipeline(), train)
    held_out = lab.prepare(feed.pipeline, test)
    say(f"prepared: {feed}; {len(held_out):,} rows are held out")
    teacher = h3.Actor("demo-teacher", h3.TorchModel(large_network))
    # Held-out rows only draw the curve: nothing is chosen by it.
    taught = lab.train(teacher, feed, epochs=3 if options.quick else 10, validation=held_out).wait()
    mark = ", ".join(f"{metric} {value:.4f}" for metric, value in measures(teacher, held_out).items())
    say(f"the teacher learned from {len(feed):,} labels: {mark}")
    results = list[Result]()
    scale = {"seeds": options.seeds, "steps": 100 if options.quick else 600, "labelled": options.labelled}
    for result in students(lab, teacher, feed, held_out, **scale):
        if result.seed > len({earlier.seed for earlier in results}):
            say(f"students of seed {result.seed} of {options.seeds}")
        results.append(result)
    say(f"each student taught, against the same student alone; {options.seeds} seeds")
    print(*table(compared := comparison(results)), "", sep="\n")
    return page(options.out, train, feed, taught, mark, results, compared)


def page(out: Path, rows: Any, feed: Any, taught: Any, mark: str, results: list[Result], compared: Any) -> Path:
    """The same as one HTML file with pictures, complete in itself."""
    curves = [result.run for result in results if result.student == "small network" and result.seed == 1]
    sections: list[tuple[str, Any]] = [
        ("", INTRODUCTION.replace("\n", " ")),
        ("Raw rows", rows.head(5).drop(columns=["words", "currency", "exclamations"])),
        ("Prepared on the engines", f"{feed}\n{FITTED}"),
        ("", [{name: worker[name] for name in ("block", "worker", "how")} for worker in feed.manifest["workers"]]),
        ("The teacher", taught),
        ("", f"On held-out messages: {mark}."),
        ("A student network, taught in three ways (first seed)", curves),
        ("Was it worth it?", CAUTION.replace("\n", " ")),
        *by_metric(compared),
        ("See it live", 'scripts/lab opens the same as a notebook; h3.attach("demo-teacher") finds the run again.'),
    ]
    out.mkdir(parents=True, exist_ok=True)
    return Path(worlds.load("h3lab.ui.page:write_page")(out / "report.html", "A teacher and its students", sections))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m h3lab.demos.spam", description="The whole idea on real data.")
    parser.add_argument("--out", type=Path, default=Path("demo-output"), help="folder of the page (%(default)s)")
    parser.add_argument("--engines", type=int, help="engines to start (2), where none run yet")
    parser.add_argument("--seeds", type=int, default=5, help="draws of messages and weights (%(default)s)")
    parser.add_argument("--labelled", type=int, default=LABELLED, help="labels that a student sees (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="train little: to see that everything works")
    options = parser.parse_args(arguments)
    if options.seeds < 2:
        parser.error("an interval needs at least two seeds")
    say("engines start, or are joined")
    try:
        with h3.Lab(engines=options.engines) as lab:
            say("the laboratory is ready")
            path = tell(lab, options)
    except KeyboardInterrupt:
        say("interrupted: what had begun here was stopped, and can be looked at with h3lab runs")
        return 130
    say(f"curves and table: {path.resolve().as_uri()}; the same, live: scripts/lab")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
