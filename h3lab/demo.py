"""The whole idea on real data, without a browser: ``python -m h3lab.demo``.

It knows one story: text messages are prepared on the engines, a teacher learns to tell spam there, and two students
learn from a hundred messages alone or from the teacher as well. Everything it does goes through the public face; what a
student gains is measured over several draws of its messages and weights, and said with its uncertainty.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import h3lab as h3

if TYPE_CHECKING:
    import pandas as pd

MESSAGES = str(Path(h3.__file__).parent / "data" / "sms_spam-*.parquet")
NUMBERS = ["characters", "words", "digits", "capitals", "currency", "exclamations", "longest_number"]
#: Messages whose labels a student sees (about: they are drawn by key), of some 4,100 that the teacher learned from.
LABELLED = 100
#: Metric → whether more of it is better.
METRICS = {"accuracy": True, "negative log-likelihood": False, "calibration error": False}


# ---- What is compared ---------------------------------------------------------------------------------------


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

    hidden = nn.Linear(spec.features, 256)
    return nn.Sequential(hidden, nn.ReLU(), nn.Dropout(0.3), nn.Linear(256, spec.outputs))


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


# ---- How it is compared -------------------------------------------------------------------------------------


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
    for metric, rises in METRICS.items():
        yield f"{metric} ({'more' if rises else 'less'} is better)"
        yield f"  {'student':20} {'taught on':26} {'alone':>7}   {'taught':>6}    {'gain':>7}   95 % interval"
        for (student, way), row in compared.loc[metric].iterrows():
            values = f"{row.alone:7.4f} → {row.taught:6.4f}   {row.gain:+8.4f}   [{row.low:+.4f}, {row.high:+.4f}]"
            yield f"  {student:20} {way:26} {values}  {row.verdict}"


# ---- The story ----------------------------------------------------------------------------------------------


class Clock:
    """Says what happens, each line with the seconds since the start."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    def __call__(self, *lines: str) -> None:
        for line in lines:
            print(f"[{time.monotonic() - self._start:5.1f} s] {line}", flush=True)


def students(lab: Any, teacher: Any, feed: Any, held_out: Any, *, seeds: int = 5, steps: int = 600) -> Iterator[Result]:
    """Both students, alone and taught, over several seeds, which draw the labelled messages as well as the weights.

    A student network takes ``steps`` steps whatever it learns from, so that nobody wins by training longer.
    """
    for seed in range(1, seeds + 1):
        # The seed is not that of the split by source: the same draw again would leave nothing to choose.
        _, few = feed.split(LABELLED / len(feed), seed=seed)
        started = []
        for (way, (rows, transfer)), (student, model) in product(ways(teacher, few, feed).items(), models().items()):
            actor = h3.Actor(f"demo-{student}-{way}".replace(" ", "-"), model, seed=seed)
            settings = {} if student == "logistic regression" else {"epochs": max(1, round(steps / rows.steps(64)))}
            run = lab.train(actor, rows, transfer=transfer, validation=held_out, **settings)
            started.append((student, way, actor, run))
        for student, way, actor, run in started:
            run.wait()
            yield Result(seed, student, way, run, measures(actor, held_out))
