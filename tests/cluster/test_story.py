"""The README's ten lines on a folder of Parquet files: raw rows, a teacher, a student, a file, another notebook."""

import numpy as np
import pandas as pd
import pytest
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

import h3lab as h3
from h3lab.errors import UsageError

from .conftest import network


@pytest.fixture
def reviews(tmp_path):
    """600 reviews in three files, whose rating (1, 3 or 5) shows in their words and in their stars."""
    rng = np.random.default_rng(0)
    words = {1: "broken refund awful late".split(), 3: "fine okay average".split(), 5: "love great perfect".split()}
    ratings = rng.choice([1, 3, 5], 600)
    common = "the a it box this was very".split()
    frame = pd.DataFrame(
        {
            "title": [" ".join(rng.choice(words[r] + common, 3)) for r in ratings],
            "body": [" ".join(rng.choice(words[r] + common * 2, 12)) for r in ratings],
            "price": rng.lognormal(3, 1, 600),
            "stars": ratings + rng.normal(0, 1.5, 600),
            "rating": ratings,
        }
    )
    for number in range(3):
        frame[number * 200 : number * 200 + 200].to_parquet(tmp_path / f"reviews-{number}.parquet")
    return tmp_path


def test_the_ten_lines_of_the_readme(lab, reviews, monkeypatch):
    monkeypatch.chdir(reviews)
    train, test = h3.read("reviews-*.parquet").split(test=0.2, seed=0)
    pipeline = h3.Pipeline(
        h3.Preprocessor("text", ["title", "body"], TfidfVectorizer(), TruncatedSVD(16)),
        h3.Preprocessor("numbers", ["price", "stars"], StandardScaler()),
        label="rating",
    )
    feed = lab.prepare(pipeline, train, to="prepared/reviews")
    held_out = lab.prepare(feed.pipeline, test)
    assert len(feed) + len(held_out) == 600 and not pipeline.fitted
    assert feed.spec.labels == (1, 3, 5)

    teacher = h3.Actor("teacher", h3.TorchModel(network, lr=1e-2))
    run = lab.train(teacher, feed, epochs=10, batch_size=64, validation=held_out, ranks=2)
    run.wait()
    assert {"step", "epoch", "seconds", "loss", "val_loss", "val_accuracy"} <= set(run.frame().columns)
    assert teacher.score(held_out) > 0.9

    student = h3.Actor("student", LogisticRegression())
    lab.train(student, feed, transfer=h3.Distill(teacher, temperature=4, soft=0.9)).wait()
    new_rows = test.head(20)
    assert set(student.predict(new_rows.drop(columns="rating"))) <= {1, 3, 5}
    student.save("student.h3")
    again = h3.load("student.h3")
    assert (again.predict_proba(new_rows) == student.predict_proba(new_rows)).all()
    assert again.score(test) == student.score(held_out)
    with pytest.raises(UsageError, match="raw rows|DataFrame"):
        student.predict(feed.arrays()[0])

    assert h3.attach("teacher").frame()["step"].tolist() == run.frame()["step"].tolist()
    assert len(h3.open_feed("prepared/reviews")) == len(feed)
