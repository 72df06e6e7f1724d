"""The demo: its data are what they say, its statistics are those of a textbook, and it runs from end to end."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import h3lab as h3
from h3lab.demos import spam
from h3lab.feeds.feed import Feed

DATA = Path(h3.__file__).parent / "data"


@pytest.fixture(scope="module")
def messages() -> pd.DataFrame:
    return pd.concat([pd.read_parquet(path) for path in sorted(DATA.glob("sms_spam-*.parquet"))], ignore_index=True)


# ---- The data ---------------------------------------------------------------------------------------------


def test_the_messages_are_small_and_carry_their_licence():
    assert sum(path.stat().st_size for path in DATA.iterdir()) < 3_000_000
    licence = (DATA / "README.md").read_text(encoding="utf-8")
    assert all(words in licence for words in ("CC BY 4.0", "Almeida", "Changes", "sms_spam-*.parquet"))


def test_the_messages_are_those_of_the_readme(messages):
    assert len(messages) == 5171
    assert messages["label"].value_counts().to_dict() == {"ham": 4518, "spam": 653}
    assert not messages["message"].duplicated().any(), "a held-out message would have been seen in training"
    assert not messages.isna().any().any()


def test_the_numbers_were_counted_from_the_messages(messages):
    text = messages["message"]
    counted = pd.DataFrame(
        {
            "characters": text.str.len(),
            "words": text.str.split().str.len(),
            "digits": text.str.count("[0-9]"),
            "capitals": text.str.count("[A-Z]"),
            "currency": text.str.count("[£$€]"),
            "exclamations": text.str.count("!"),
            "longest_number": [max(map(len, re.findall("[0-9]+", one)), default=0) for one in text],
        }
    )
    pd.testing.assert_frame_equal(messages[spam.NUMBERS], counted[spam.NUMBERS], check_dtype=False)


# ---- The statistics ---------------------------------------------------------------------------------------


def test_the_interval_is_that_of_a_paired_t_test():
    from scipy.stats import ttest_rel

    random = np.random.default_rng(0)
    alone, taught = random.normal(0.9, 0.01, 7), random.normal(0.91, 0.01, 7)
    expected = ttest_rel(taught, alone).confidence_interval(0.95)
    found = spam.gain("accuracy", alone, taught)
    assert found["gain"] == pytest.approx(taught.mean() - alone.mean())
    assert (found["low"], found["high"]) == pytest.approx((expected.low, expected.high))


@pytest.mark.parametrize(
    ("metric", "taught", "verdict"),
    [
        ("accuracy", [0.95, 0.96, 0.95, 0.96], "gain"),
        ("accuracy", [0.85, 0.86, 0.85, 0.86], "loss"),
        ("accuracy", [0.80, 1.00, 0.85, 0.99], "no gain"),
        ("accuracy", [0.90, 0.90, 0.90, 0.90], "no gain"),
        ("negative log-likelihood", [0.95, 0.96, 0.95, 0.96], "loss"),
        ("calibration error", [0.85, 0.86, 0.85, 0.86], "gain"),
    ],
)
def test_the_verdict_is_a_gain_only_where_the_interval_leaves_zero_out(metric, taught, verdict):
    assert spam.gain(metric, [0.9, 0.9, 0.9, 0.9], taught)["verdict"] == verdict


def test_students_are_compared_with_the_same_student_of_the_same_seed():
    def result(seed, student, way, value):
        return spam.Result(seed, student, way, None, dict.fromkeys(spam.METRICS, value))

    results = [
        *(result(seed, "a", "alone", value) for seed, value in ((1, 0.5), (2, 0.7))),
        *(result(seed, "a", "taught", value) for seed, value in ((2, 0.8), (1, 0.6))),  # another order
        *(result(seed, "b", "alone", 0.0) for seed in (1, 2)),
        *(result(seed, "b", "taught", 0.0) for seed in (1, 2)),
    ]
    compared = spam.comparison(results)
    assert list(compared.loc["accuracy"].index) == [("a", "taught"), ("b", "taught")]
    row = compared.loc[("accuracy", "a", "taught")]
    assert (row.alone, row.taught, row.gain, row.low, row.verdict) == (0.6, 0.7, *[pytest.approx(0.1)] * 2, "gain")
    lines = list(spam.table(compared))
    assert any(re.search(r"a +taught +0\.6000 +0\.7000 +\+0\.1000 .* gain *$", line) for line in lines)
    assert any(re.search(r"a +taught .* loss *$", line) for line in lines), "more log-likelihood lost is a loss"


def test_measures_agree_with_scikit_learn():
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import accuracy_score, log_loss

    random = np.random.default_rng(1)
    X = random.normal(size=(400, 3))
    y = np.where(X[:, 0] + random.normal(size=400) > 0, "yes", "no")
    actor = h3.Actor("measured", LogisticRegression()).fit(X[:200], y[:200])
    held_out = Feed.of(X[200:], y[200:])
    found = spam.measures(actor, held_out)
    assert found["accuracy"] == pytest.approx(accuracy_score(y[200:], actor.predict(X[200:])))
    assert found["negative log-likelihood"] == pytest.approx(log_loss(y[200:], actor.predict_proba(X[200:])))


def test_the_calibration_error_of_one_constant_answer_is_its_distance_from_the_truth():
    from sklearn.dummy import DummyClassifier

    X = np.zeros((10, 1))
    actor = h3.Actor("constant", DummyClassifier(strategy="prior")).fit(X, np.repeat([0, 1], [7, 3]))
    held_out = Feed.of(X, np.repeat([0, 1], [5, 5]))  # says 0 with confidence .7, and is right in half
    assert spam.measures(actor, held_out)["calibration error"] == pytest.approx(0.2)


def test_another_draw_of_messages_is_another_hundred():
    import h3lab.preparing.prepare

    rows = h3.read(spam.MESSAGES).split(test=0.2, seed=0)[0]
    feed = h3lab.preparing.prepare.prepare(spam.pipeline(), rows)
    draws = [set(feed.split(spam.LABELLED / len(feed), seed=seed)[1].batch(slice(None)).keys) for seed in (1, 2)]
    assert all(60 < len(draw) < 140 for draw in draws)
    assert len(draws[0] & draws[1]) < 20


# ---- From end to end --------------------------------------------------------------------------------------


@pytest.mark.cluster
@pytest.mark.slow
def test_the_demo_runs_from_end_to_end(tmp_path):
    command = [sys.executable, "-m", "h3lab.demos.spam", "--quick", "--seeds", "2", "--out", str(tmp_path / "out")]
    run = subprocess.run(command, capture_output=True, text=True, timeout=280, cwd=tmp_path)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "prepared: 4,136 rows · classification, 2 classes · 107 features" in run.stdout
    verdicts = re.findall(r"(logistic regression|small network) .* (no gain|gain|loss) *$", run.stdout, re.M)
    assert len(verdicts) == len(spam.METRICS) * 2 * 2, run.stdout
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    for words in (r"demo-teacher/\d", r"demo-small-network-alone/\d", "verdict", "TfidfVectorizer"):
        assert re.search(words, page), f"no {words} on the page"
    markup = re.sub(r"(<script[^>]*>).*?</script>", r"\1", page, flags=re.S)  # BokehJS itself has addresses in strings
    assert not re.search(r"<[^>]+\b(src|href)=", markup), "the page fetches something from elsewhere"
    assert list(tmp_path.iterdir()) == [tmp_path / "out"], "it writes nothing beside its page"
