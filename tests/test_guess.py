"""A guessed pipeline is code that makes an equal one, and it says what it left out and why."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from cuts import CutSource

import h3lab as h3
from h3lab.errors import DataError, UnknownName, UsageError
from h3lab.preparing.prepare import prepare


@pytest.fixture
def frame() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = 200
    return pd.DataFrame(
        {
            "price": rng.normal(10, 3, rows),
            "stars": rng.integers(1, 6, rows),
            "age": np.where(rng.random(rows) < 0.1, np.nan, rng.normal(40, 9, rows)),
            "open": rng.random(rows) < 0.5,
            "city": rng.choice(["Oslo", "Rome", None], rows),
            "size": pd.Categorical(rng.integers(1, 4, rows)),
            "tail": [f"N{n}" for n in rng.integers(0, 80, rows)],
            "review": [" ".join(rng.choice(["good", "bad", "film", "plot"], 6)) + f" no {n}" for n in range(rows)],
            "order": [f"order-{n}" for n in range(rows)],
            "number": np.arange(rows) * 7,
            "country": ["NO"] * rows,
            "nothing": [None] * rows,
            "when": pd.date_range("2024-01-01", periods=rows, freq="h"),
            "day": [f"2024-01-{n % 28 + 1:02d}" for n in range(rows)],
            "pixels": [[1.0, 2.0]] * rows,
            "rating": np.where(rng.random(rows) < 0.05, np.nan, rng.normal(3, 1, rows)),
        }
    )


def columns_of(pipeline: h3.Pipeline) -> dict[str, list[str]]:
    return {block.name: block.names for block in pipeline.preprocessors}


def workers_of(pipeline: h3.Pipeline, name: str) -> list[str]:
    return [type(w).__name__ for block in pipeline.preprocessors if block.name == name for w in block.workers]


def pasted(pipeline: h3.Pipeline) -> h3.Pipeline:
    namespace: dict[str, h3.Pipeline] = {}
    exec(str(pipeline), {}, namespace)
    return namespace["pipeline"]


def test_columns_go_where_their_type_and_number_of_categories_send_them(frame: pd.DataFrame) -> None:
    pipeline = h3.Pipeline.guess(frame, label="rating")
    assert columns_of(pipeline) == {
        "numbers": ["price", "stars", "age"],
        "flags": ["open"],
        "categories": ["city", "size"],
        "many categories": ["tail"],
        "text": ["review"],
    }
    assert workers_of(pipeline, "numbers") == ["SimpleImputer", "StandardScaler"]
    assert workers_of(pipeline, "categories") == ["OneHotEncoder"]
    assert workers_of(pipeline, "many categories") == ["OrdinalEncoder", "StandardScaler"], "above 50 no one-hot"
    assert workers_of(pipeline, "text") == ["TfidfVectorizer"]
    full = h3.Pipeline.guess(frame[["price", "stars"]])
    assert workers_of(full, "numbers") == ["StandardScaler"], "without gaps nothing is imputed"


def test_its_text_is_code_that_makes_an_equal_pipeline(frame: pd.DataFrame) -> None:
    pipeline = h3.Pipeline.guess(frame, label="rating")
    code = repr(pipeline)
    assert code == str(pipeline)
    assert "from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler\n" in code
    assert max(map(len, code.splitlines())) <= 120
    assert pasted(pipeline) == pipeline and pasted(pipeline).recipe == pipeline.recipe
    assert pipeline != h3.Pipeline.guess(frame, label="price")
    wide = h3.Pipeline.guess(
        pd.DataFrame(np.random.default_rng(0).normal(size=(9, 90)), columns=[f"c{i}" for i in range(90)])
    )
    assert pasted(wide) == wide and max(map(len, str(wide).splitlines())) <= 120


def test_what_is_left_out_is_said_with_its_reason(frame: pd.DataFrame) -> None:
    code = str(h3.Pipeline.guess(frame, label="rating"))
    for name, why in {
        "order": "another value in every row, as an identifier has",
        "number": "another value in every row, as an identifier has",
        "country": "one value in all rows",
        "nothing": "no value in any row",
        "when": "a time (timestamp",
        "day": "a time (",
        "pixels": "of type list<",
    }.items():
        assert f"# left out: '{name}', {why}" in code
    assert "more than 50 categories (tail" in code and "no one-hot" in code


def test_rows_without_a_label_are_counted_in_the_code(frame: pd.DataFrame) -> None:
    missing = int(frame["rating"].isna().sum())
    code = str(h3.Pipeline.guess(frame, label="rating"))
    assert f"# {missing} of 200 rows have no 'rating': leave them out with" in code
    assert 'on_null_label="drop"' in code
    assert "on_null_label" not in str(h3.Pipeline.guess(frame.dropna(subset="rating"), label="rating"))


def test_the_guess_prepares_and_learns(frame: pd.DataFrame) -> None:
    from sklearn.linear_model import Ridge

    feed = prepare(h3.Pipeline.guess(frame, label="rating"), frame, on_null_label="drop")
    assert feed.manifest is None and len(feed) == frame["rating"].notna().sum()
    actor = h3.Actor("guessed", Ridge()).fit(feed)
    assert np.isfinite(actor.predict(frame.drop(columns="rating"))).all()


def test_a_label_of_many_whole_numbers_is_a_quantity() -> None:
    rows = pd.DataFrame(
        {"x": np.random.default_rng(0).normal(size=90), "n": np.arange(90) % 30, "c": np.arange(90) % 3}
    )
    assert h3.Pipeline.guess(rows, label="n").task == "regression"
    assert "task: the label has 30 different whole numbers" in str(h3.Pipeline.guess(rows, label="n"))
    assert h3.Pipeline.guess(rows, label="c").task is None
    assert h3.Pipeline.guess(rows, label="n", task="classification").task == "classification"


def test_a_large_source_is_sampled_and_its_label_counted(frame: pd.DataFrame) -> None:
    class Counting(CutSource):
        read_rows = 0

        def read(self, part, columns=None):
            table = super().read(part, columns)
            type(self).read_rows += table.num_rows if columns is None else 0
            return table

    source = Counting(frame, list(range(10, 200, 10)))
    pipeline = h3.Pipeline.guess(source, label="rating")
    assert Counting.read_rows == 40 and "guessed from 40 rows, not from all" in str(pipeline)
    assert f"{frame['rating'].isna().sum()} of 200 rows have no 'rating'" in str(pipeline)
    assert workers_of(pipeline, "numbers")[0] == "SimpleImputer", "what the sample has may miss elsewhere"


def test_arrays_csv_and_arrow_are_guessed_too(tmp_path, frame: pd.DataFrame) -> None:
    X = np.random.default_rng(0).normal(size=(30, 3))
    assert columns_of(h3.Pipeline.guess((X, X[:, 0] > 0))) == {"numbers": ["x0", "x1", "x2"]}
    frame.drop(columns="pixels").to_csv(tmp_path / "rows.csv", index=False)
    assert columns_of(h3.Pipeline.guess(tmp_path / "rows.csv", label="rating"))["text"] == ["review"]
    table = pa.table({"a": [1.0, 2.0], "b": pa.array(["u", "v"]).dictionary_encode()})
    assert columns_of(h3.Pipeline.guess(table)) == {"numbers": ["a"], "categories": ["b"]}


def test_what_cannot_be_guessed_says_why(frame: pd.DataFrame) -> None:
    with pytest.raises(UnknownName, match="no column 'ratign' in the source. Did you mean 'rating'"):
        h3.Pipeline.guess(frame, label="ratign")
    with pytest.raises(DataError, match="no column to learn from beside 'rating'. 'country': one value in all rows"):
        h3.Pipeline.guess(frame[["country", "rating"]], label="rating")
    with pytest.raises(DataError, match="no rows"):
        h3.Pipeline.guess(frame[:0], label="rating")


# ---- Rows without a label, on the way to a training


def test_training_on_raw_rows_leaves_out_those_without_a_label_and_counts_them(frame: pd.DataFrame) -> None:
    from sklearn.linear_model import Ridge

    actor = h3.Actor("raw", Ridge(), h3.Pipeline.guess(frame, label="rating"), metrics=["r2"])
    with pytest.raises(DataError, match=r"missing in \d+ of \d+ rows.*on_null_label=\"drop\" \(in lab.train"):
        h3.train(actor, frame)
    training = h3.train(actor, frame, validation=0.2, on_null_label="drop")
    missing, train = int(frame["rating"].isna().sum()), h3.read(frame).split(test=0.2, seed=0)[0]
    assert training.feed.dropped == int(train.head(999)["rating"].isna().sum()) > 0
    assert f"{training.feed.dropped} rows without a label left out" in str(training.feed)
    assert "val_r2" in list(training)[-1]
    assert actor.fit(frame, on_null_label="drop").predict(frame).shape == (200,)
    assert h3.train(actor, frame, on_null_label="drop").feed.dropped == missing


def test_rows_to_validate_on_never_enter_the_fit(frame: pd.DataFrame) -> None:
    from sklearn.linear_model import Ridge

    actor = h3.Actor("split", Ridge(), h3.Pipeline.guess(frame, label="rating"))
    training = h3.train(actor, frame, validation=0.2, on_null_label="drop")
    list(training)
    train, _ = h3.read(frame).split(test=0.2, seed=0)
    rows = train.head(999).dropna(subset="rating")
    scaler = actor.pipeline_.state.stages["numbers"][1][0]
    assert scaler.n_samples_seen_ == len(rows)
    assert np.allclose(scaler.mean_[:2], rows[["price", "stars"]].mean(), atol=1e-12)


def test_choices_of_how_rows_are_prepared_are_refused_where_nothing_is_prepared(frame: pd.DataFrame) -> None:
    from sklearn.linear_model import Ridge

    feed = prepare(h3.Pipeline.guess(frame, label="rating"), frame, on_null_label="drop")
    with pytest.raises(UsageError, match=r"came with a Feed, whose rows are prepared already.*lab.prepare\(pipeline"):
        h3.train(h3.Actor("fed", Ridge()), feed, on_null_label="drop")
    with pytest.raises(UsageError, match="actor 'bare' has no pipeline, so nothing is prepared.*Pipeline.guess"):
        h3.train(h3.Actor("bare", Ridge()), feed.arrays(), on_null_label="drop")
    with pytest.raises(UnknownName, match="no choice .*'on_nul_label'. Did you mean 'on_null_label'"):
        h3.train(h3.Actor("misspelt", Ridge(), feed.pipeline), frame, on_nul_label="drop")
    with pytest.raises(UnknownName, match="on_null_label 'dorp'.*'drop'"):
        h3.train(h3.Actor("misspelt", Ridge(), feed.pipeline), frame, on_null_label="dorp")


@pytest.mark.parametrize("columns", [["review"], ["review", "note"]], ids=["one", "two"])
def test_a_guess_with_gaps_in_its_text_becomes_a_plain_pipeline(columns: list[str], frame: pd.DataFrame) -> None:
    from sklearn.ensemble import HistGradientBoostingRegressor
    from sklearn.linear_model import Ridge

    rows = frame.assign(note=frame["review"].where(frame.index % 9 > 0)).dropna(subset="rating")
    for gaps in (False, True):
        if gaps:
            rows["review"] = rows["review"].where(rows.index % 7 > 0)
        elif len(columns) > 1:
            continue
        given = rows[["price", "stars", *columns, "rating"]]
        for model in (Ridge(), HistGradientBoostingRegressor(max_iter=2)):  # the second takes no sparse rows
            actor = h3.Actor("plain", model, h3.Pipeline.guess(given, label="rating")).fit(given)
            assert np.allclose(actor.to_sklearn().predict(given), actor.predict(given), atol=1e-9)


def test_the_page_shows_what_the_guess_prints(tmp_path, monkeypatch) -> None:
    page = (Path(__file__).parent.parent / "docs" / "your-own-table.md").read_text(encoding="utf-8")
    (made, guessed, *_), shown = (
        re.findall(r"```python\n(.*?)```", page, re.S),
        re.search(r"```text\n(.*?)```", page, re.S),
    )
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, h3.Pipeline] = {}
    exec(made + guessed, namespace)
    assert shown and f"{namespace['pipeline']}\n" == shown.group(1)
