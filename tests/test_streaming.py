"""Streaming: rows that are prepared when they are due, and neither stored nor held."""

import pickle
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from cuts import CutSource, Pickling
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import SGDClassifier
from sklearn.preprocessing import OneHotEncoder, StandardScaler, TargetEncoder
from torch import nn

import h3lab as h3
from h3lab.errors import DataError, UnknownName, UsageError
from h3lab.feeds import feed as feeds
from h3lab.preparing import streaming
from h3lab.preparing.prepare import prepare
from h3lab.preparing.streaming import Stream, stream


def frame(rows: int = 120, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    words = [f"word{i}" for i in range(30)]
    table = pd.DataFrame(
        {
            "text": [" ".join(rng.choice(words, 6)) for _ in range(rows)],
            "a": rng.normal(3, 2, rows),
            "b": rng.normal(size=rows),
            "city": rng.choice(["Oslo", "Rome", "Łódź"], rows),
        }
    )
    table["label"] = np.where(table.a + rng.normal(size=rows) > 3, "yes", "no")
    table.loc[::7, "a"] = None
    return table


def recipe(**settings: Any) -> h3.Pipeline:
    return h3.Pipeline(
        h3.Preprocessor("text", "text", TfidfVectorizer()),
        h3.Preprocessor("numbers", ["a", "b"], SimpleImputer(), StandardScaler()),
        h3.Preprocessor("city", ["city"], OneHotEncoder()),
        label="label",
        **settings,
    )


def numbers() -> h3.Pipeline:
    return h3.Pipeline(h3.Preprocessor("numbers", ["a", "b"], SimpleImputer(), StandardScaler()), label="label")


def perceptron(spec: Any) -> nn.Module:
    return nn.Sequential(nn.Linear(spec.features, 8), nn.ReLU(), nn.Linear(8, spec.outputs))


def dense(x: Any) -> np.ndarray:
    return np.asarray(x.toarray() if hasattr(x, "toarray") else x)


def told(records: Any) -> list[dict[str, float]]:
    return [{name: value for name, value in record.items() if name != "seconds"} for record in records]


def test_batches_are_those_of_the_prepared_feed_bit_for_bit() -> None:
    source = CutSource(frame(), [30, 30, 55, 80])
    streamed, prepared = stream(recipe(), source), prepare(recipe(), source)
    assert isinstance(streamed, feeds.Feed) and len(streamed) == len(prepared) == 120
    assert streamed.spec == prepared.spec and streamed.pipeline == prepared.pipeline
    for one, two in zip(
        streamed.epoch(0, batch_size=16, shuffle=False), prepared.epoch(0, batch_size=16, shuffle=False), strict=True
    ):
        assert np.array_equal(dense(one.x), dense(two.x)) and np.array_equal(one.y, two.y)
        assert np.array_equal(one.keys, two.keys)
    assert np.array_equal(streamed.targets(), prepared.targets())


@pytest.mark.parametrize(
    ("model", "more"), [(SGDClassifier(random_state=0), {}), (h3.TorchModel(perceptron), {"lr": 0.03})]
)
def test_what_is_learned_is_what_is_learned_from_the_prepared_feed(model: Any, more: dict[str, Any]) -> None:
    source = CutSource(frame(300), [70, 140, 210])
    settings: dict[str, Any] = {"epochs": 8, "batch_size": 32, "shuffle": False, "seed": 4, "validation": 0.2, **more}
    one, two = h3.Actor("one", model, numbers()), h3.Actor("two", model, numbers())
    records = told(h3.train(one, source, prepare="stream", **settings))
    assert records == told(h3.train(two, source, **settings))
    answers = [actor.decision_function(frame(40)) for actor in (one, two)]
    assert np.array_equal(*answers)
    assert records[-1]["val_accuracy"] > 0.6


def alive(monkeypatch: pytest.MonkeyPatch, source: Any, window: int) -> tuple[int, int]:
    """(most prepared parts that are there at once, parts that were prepared) in an epoch of training."""
    now, most, made = 0, 0, 0
    write = streaming.write

    def watched(task: Any) -> Any:
        nonlocal now, most, made
        found = write(task)

        def gone() -> None:
            nonlocal now
            now -= 1

        now, made = now + 1, made + 1
        most = max(most, now)
        weakref.finalize(found["batch"].x, gone)
        return found

    monkeypatch.setattr(streaming, "write", watched)
    monkeypatch.setattr(streaming, "WINDOW_BYTES", window * 20 * 40)
    actor = h3.Actor("a", SGDClassifier(random_state=0), numbers())
    for _ in h3.train(actor, source, prepare="stream", epochs=1, batch_size=8):
        pass
    return most, made


@pytest.mark.parametrize("parts", [10, 80])
def test_as_many_prepared_parts_are_alive_whatever_the_source_has(monkeypatch: Any, parts: int) -> None:
    source = CutSource(frame(20 * parts), list(range(20, 20 * parts, 20)))
    most, made = alive(monkeypatch, source, window=3)
    assert 3 <= most <= 9  # three windows
    assert parts <= made <= parts + 1  # each once, and one for what is checked before the first step


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "WINDOW_BYTES", 3 * 20 * 40)


def keys(batches: Any) -> list[int]:
    return [key for batch in batches for key in batch.keys.tolist()]


def test_an_epoch_has_every_row_once_in_an_order_of_its_own(narrow: None) -> None:
    source = CutSource(frame(200), list(range(20, 200, 20)))
    feed = stream(numbers(), source)
    assert feed._rows.window == 3
    a, b = (keys(feed.epoch(number, batch_size=16)) for number in (0, 1))
    assert a != b and sorted(a) == sorted(b) and len(set(a)) == 200
    assert a == keys(stream(numbers(), source).epoch(0, batch_size=16))
    assert a != keys(feed.epoch(0, batch_size=16, seed=1))
    whole = keys(feed.epoch(0, shuffle=False))
    part_of = {key: row // 20 for row, key in enumerate(whole)}
    for begin in range(0, 180, 60):  # rows of three parts, mixed
        found = [part_of[key] for key in a[begin : begin + 60]]
        assert len(set(found)) == 3 and found != sorted(found)


def test_an_epoch_goes_on_where_it_was_left_and_is_shared_by_ranks(narrow: None) -> None:
    feed = stream(numbers(), CutSource(frame(203), list(range(20, 203, 20))))
    batches = [keys([batch]) for batch in feed.epoch(2, batch_size=16)]
    assert [keys([batch]) for batch in feed.epoch(2, batch_size=16, start=5)] == batches[5:]
    ranks = [[keys([batch]) for batch in feed.epoch(2, batch_size=16, rank=rank, ranks=2)] for rank in (0, 1)]
    assert [one + two for one, two in zip(*ranks, strict=True)] == batches


def test_a_view_is_shuffled_in_windows_too(narrow: None) -> None:
    feed = stream(numbers(), CutSource(frame(200), list(range(20, 200, 20))))
    rest, held = feed.split(0.3, seed=1)
    found = keys(rest.epoch(0, batch_size=16)) + keys(held.epoch(0, batch_size=16))
    assert sorted(found) == sorted(keys(feed.epoch(0)))


def test_a_training_goes_on_bit_equal_from_a_snapshot(narrow: None) -> None:
    source = CutSource(frame(200), list(range(20, 200, 20)))
    actor = h3.Actor("a", h3.TorchModel(perceptron), numbers(), epochs=2, batch_size=16)
    whole = told(h3.train(actor, source, prepare="stream"))
    begun = h3.train(actor, source, prepare="stream")
    for _ in range(7):
        next(begun)
    again = h3.train(actor, source, prepare="stream")
    again.restore(begun.snapshot())
    assert told(again) == whole[7:]


def test_a_fitted_pipeline_is_applied_without_a_pass(monkeypatch: Any) -> None:
    fitted = prepare(numbers(), frame(200)).pipeline
    source = CutSource(frame(100, seed=5), [40])
    monkeypatch.setattr(streaming, "fit", None)
    feed = stream(fitted, source)
    assert np.array_equal(feed.arrays()[0], prepare(fitted, source).arrays()[0])


def test_rows_without_a_label_are_left_out_and_counted() -> None:
    table = frame(100)
    table.loc[[3, 50, 51, 99], "label"] = None
    source = CutSource(table, [50, 52])  # the middle part has no row left
    for pipeline in (numbers(), prepare(numbers(), frame(100)).pipeline):
        feed = stream(pipeline, source, on_null_label="drop")
        assert len(feed) == 96 and feed.dropped == 4
        assert np.array_equal(feed.arrays()[1], table.label.dropna().to_numpy())
        assert keys(feed.epoch(0, shuffle=False)) == keys(
            prepare(pipeline, source, on_null_label="drop").epoch(0, shuffle=False)
        )
    with pytest.raises(DataError, match="label"):
        stream(numbers(), source)


def test_blocks_are_looked_up_in_other_sources_on_the_way(tmp_path: Path) -> None:
    frame(90).assign(id=np.arange(90) % 12).to_parquet(tmp_path / "rows.parquet", row_group_size=20)
    pd.DataFrame({"id": np.arange(12), "size": np.linspace(0, 1, 12)}).to_parquet(tmp_path / "sizes.parquet")
    sources = {"rows": h3.read(tmp_path / "rows.parquet"), "sizes": h3.read(tmp_path / "sizes.parquet")}
    pipeline = h3.Pipeline(
        h3.Preprocessor("numbers", ["b"], StandardScaler()),
        h3.Preprocessor("size", ["size"], StandardScaler(), source="sizes"),
        label="label",
    )
    streamed, prepared = (verb(pipeline, sources, keys={"sizes": "id"}) for verb in (stream, prepare))
    assert np.array_equal(streamed.arrays()[0], prepared.arrays()[0])
    again = pickle.loads(pickle.dumps(streamed))
    assert np.array_equal(again.arrays()[0], prepared.arrays()[0])


def test_it_travels_as_pipeline_and_source(tmp_path: Path) -> None:
    frame(5000).to_parquet(tmp_path / "rows.parquet", row_group_size=500)
    feed = stream(numbers(), h3.read(tmp_path / "rows.parquet"), executor=Pickling())
    sent = pickle.dumps(feed)
    again = pickle.loads(sent)
    assert isinstance(again, Stream) and len(sent) < 20_000
    assert keys(again.epoch(3)) == keys(feed.epoch(3)) and again.fingerprint == feed.fingerprint
    assert "when they are due" in feed._repr_mimebundle_()["text/html"] and "when they are due" in repr(feed.report())
    assert "5,000 rows" in repr(again) and again.report().passes == feed.report().passes


def test_a_part_that_changes_under_a_training_is_an_error() -> None:
    source = CutSource(frame(60), [20, 40])
    feed = stream(numbers(), source)
    source.table = source.table.slice(0, 50)
    with pytest.raises(DataError, match="10 rows now, and had 20"):
        list(feed.epoch(0))


def test_what_needs_all_rows_at_once_is_refused_before_any_row_is_read(tmp_path: Path) -> None:
    source = CutSource(frame(60), [20])
    source.read = None  # type: ignore[method-assign,assignment]
    with pytest.raises(UsageError, match="learns from all rows at once"):
        h3.train(h3.Actor("forest", RandomForestClassifier(), numbers()), source, prepare="stream")
    with pytest.raises(UnknownName, match="stream"):
        h3.train(h3.Actor("a", SGDClassifier(), numbers()), source, prepare="steam")


def test_what_a_stream_cannot_do_is_said(narrow: None) -> None:
    source = CutSource(frame(60), [20, 40])
    actor = h3.Actor("a", SGDClassifier(), numbers())
    for wrong in ({"shuffle": "rows"}, {"bucket": True}):
        with pytest.raises(UsageError, match="leave out prepare='stream'"):
            h3.train(actor, source, prepare="stream", **wrong)
    encoded = h3.Pipeline(h3.Preprocessor("city", ["city"], TargetEncoder()), label="label")
    with pytest.raises(UsageError, match="TargetEncoder"):
        stream(encoded, source)
    with pytest.raises(UsageError, match="pass the source"):
        h3.train(actor, prepare(numbers(), source), prepare="stream")


def test_rows_are_drawn_by_class_on_the_way(narrow: None) -> None:
    table = frame(200)
    table["label"] = np.where(np.arange(200) % 10 == 0, "rare", "usual")
    feed = stream(numbers(), CutSource(table, list(range(20, 200, 20))))
    codes = np.concatenate([batch.y for batch in feed.epoch(0, sampling="balanced", batch_size=16)])
    assert len(codes) == 200 and abs(int((codes == 0).sum()) - 100) <= 1
