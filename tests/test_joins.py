"""Blocks from several sources: each row finds what it looks up, or the error names block, key and row."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from cuts import CutSource, Pickling
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import h3lab as h3
from h3lab import worlds
from h3lab.errors import DataError, UnknownName, UsageError
from h3lab.joining import joined as joins
from h3lab.joining.joined import Joined
from h3lab.joining.policies import Policies
from h3lab.preparing.prepare import prepare
from h3lab.testing import check_source

HOURS = pd.date_range("2013-01-01", periods=6, freq="h")


def flights(rows: int = 60) -> pd.DataFrame:
    n = np.arange(rows)
    return pd.DataFrame(
        {
            "origin": np.array(["EWR", "JFK", "LGA"])[n % 3],
            "hour": HOURS[n % 6],
            "tail": [f"N{k % 7}" if k % 11 else None for k in n],
            "distance": n * 10.0,
            "delay": np.sin(n),
        }
    )


def weather() -> pd.DataFrame:
    return pd.DataFrame(
        [(o, h, 10.0 * i + j) for i, o in enumerate(["EWR", "JFK", "LGA"]) for j, h in enumerate(HOURS)],
        columns=["origin", "hour", "temp"],
    )


def planes() -> pd.DataFrame:
    return pd.DataFrame({"tail": [f"N{k}" for k in range(9)], "seats": np.arange(9) * 20, "maker": list("ababababc")})


def pipeline(**more) -> h3.Pipeline:
    return h3.Pipeline(
        h3.Preprocessor("route", ["origin", "distance"][:1], OneHotEncoder()),
        h3.Preprocessor("weather", ["temp"], StandardScaler(), source="weather"),
        h3.Preprocessor("plane", ["seats"], SimpleImputer(), source="planes"),
        label="delay",
        **more,
    )


KEYS = {"weather": ["origin", "hour"], "planes": "tail"}


def sources(**changes) -> dict:
    return {"flights": flights(), "weather": weather(), "planes": planes()} | changes


def by_pandas(how: str) -> pd.DataFrame:
    rows = flights().merge(weather(), on=["origin", "hour"], how=how)
    return rows.merge(planes(), on="tail", how=how)


def test_blocks_are_looked_up_as_a_left_join_would():
    feed = prepare(pipeline(), sources(), keys=KEYS, on_missing="fill")
    x, y = feed.arrays()
    expected = by_pandas("left")
    assert np.array_equal(y, expected["delay"])
    x = x.toarray() if hasattr(x, "toarray") else x
    np.testing.assert_allclose(x[:, 3:4], StandardScaler().fit_transform(expected[["temp"]]), atol=1e-12)
    np.testing.assert_array_equal(x[:, 4:], SimpleImputer().fit_transform(expected[["seats"]]))
    assert feed.pipeline.feature_names[3:] == ["weather__temp", "plane__seats"]


def test_rows_without_a_match_are_left_out_where_that_is_chosen():
    feed = prepare(pipeline(), sources(), keys=KEYS, on_missing="drop")
    assert np.array_equal(feed.arrays()[1], by_pandas("inner")["delay"])
    whole = prepare(h3.Pipeline(h3.Preprocessor("d", ["distance"]), label="delay"), flights())
    keys = dict(zip(whole.arrays()[1].tolist(), whole.batch(slice(None)).keys.tolist(), strict=True))
    kept = feed.batch(slice(None))
    assert [keys[y] for y in kept.y.tolist()] == kept.keys.tolist(), "a row keeps its key when others are left out"


@pytest.mark.parametrize("keys", ["tail", ["tail"]])
def test_keys_that_are_no_dict_are_shown_as_one(keys):
    with pytest.raises(UsageError, match=r"expected a dict .*keys=\{'weather': .*tail"):
        prepare(pipeline(), sources(), keys=keys)


def test_a_missing_key_is_named_with_block_key_and_rows():
    with pytest.raises(
        DataError, match=r"block 'plane': 6 rows of 'flights' are not in 'planes' by tail: None \(row 0 "
    ):
        prepare(pipeline(), sources(), keys=KEYS)
    few = planes()[planes()["tail"] != "N3"]
    with pytest.raises(DataError, match=r"N3 \(row 3 of .*on_missing='drop'"):
        prepare(pipeline(), sources(planes=few, flights=flights().fillna({"tail": "N1"})), keys=KEYS)


def test_a_doubled_key_is_named_or_its_first_row_counts():
    double = pd.concat([weather(), weather().assign(temp=-1.0)[:2]])
    words = r"block 'weather': 2 rows of 'weather' have a key .*: EWR, 2013-01-01 00:00:00 \(rows 0 and 18\)"
    with pytest.raises(DataError, match=words):
        prepare(pipeline(), sources(weather=double), keys=KEYS, on_missing="fill")
    one = prepare(pipeline(), sources(weather=double), keys=KEYS, on_missing="fill", on_duplicate="first")
    two = prepare(pipeline(), sources(), keys=KEYS, on_missing="fill")
    assert (one.arrays()[0] != two.arrays()[0]).sum() == 0


def test_the_manifest_counts_what_was_filled_doubled_and_never_looked_up(tmp_path):
    double = pd.concat([planes(), planes()[:1], pd.DataFrame({"tail": [None], "seats": [1], "maker": ["z"]})])
    feed = prepare(
        pipeline(), sources(planes=double), keys=KEYS, on_missing="fill", on_duplicate="first", to=tmp_path / "feed"
    )
    told = feed.manifest["counts"]["lookups"]
    assert told["planes"] == {"rows": 11, "duplicates": 1, "without_key": 1, "missing": 6, "surplus": 2}
    assert told["weather"] == {"rows": 18, "duplicates": 0, "without_key": 0, "missing": 0, "surplus": 0 + 12}


@pytest.mark.parametrize("cuts", [[], [1, 2, 30], [0, 59]], ids=str)
def test_cuts_and_other_processes_change_nothing(cuts, tmp_path):
    given = sources(flights=CutSource(flights(), cuts), planes=CutSource(planes(), [4]))
    feed = prepare(pipeline(), given, keys=KEYS, on_missing="fill", executor=Pickling(), to=tmp_path / "feed")
    expected = prepare(pipeline(), sources(), keys=KEYS, on_missing="fill")
    assert (abs(feed.arrays()[0] - expected.arrays()[0]) > 1e-12).sum() == 0
    assert np.array_equal(feed.arrays()[1], expected.arrays()[1])


@settings(deadline=None, max_examples=40, suppress_health_check=list(HealthCheck))
@given(
    here=st.lists(st.one_of(st.none(), st.integers(-3, 12)), min_size=1, max_size=30),
    there=st.lists(st.one_of(st.none(), st.integers(-3, 12)), max_size=20),
    text=st.booleans(),
)
def test_any_keys_are_looked_up_as_pandas_would(here, there, text):
    kind = pa.string() if text else pa.int64()
    made = [pa.array([None if k is None else str(k) if text else k for k in ks], kind) for ks in (here, there)]
    base = pa.table({"k": made[0], "n": range(len(here))})
    other = pa.table({"k": made[1], "v": pa.array(range(len(there)), pa.int64())})
    joined = Joined({"a": h3.read(base), "b": h3.read(other)}, {"b": "k"}, Policies("fill", "first"))
    found = pa.concat_tables(joined.tables(["n", "b.v"])).to_pydict()
    first = {k: v for v, k in reversed(list(enumerate(there))) if k is not None}
    assert found == {"n": list(range(len(here))), "b.v": [first.get(k) for k in here]}


def test_a_joined_source_keeps_the_promises_of_a_source(tmp_path):
    flights().to_parquet(tmp_path / "flights.parquet")
    weather().to_parquet(tmp_path / "weather.parquet")
    planes().to_csv(tmp_path / "planes.csv", index=False)
    given = {n: h3.read(tmp_path / n) for n in ("flights.parquet", "weather.parquet", "planes.csv")}
    named = dict(zip(("flights", "weather", "planes"), given.values(), strict=True))
    for how in ("fill", "drop"):
        check_source(joins.join(named, KEYS, how, "error"))


def test_new_rows_look_up_what_the_fitted_pipeline_looked_up(tmp_path):
    weather().to_parquet(tmp_path / "weather.parquet")
    planes().to_csv(tmp_path / "planes.csv", index=False)
    given = sources(weather=tmp_path / "weather.parquet", planes=tmp_path / "planes.csv")
    actor = h3.Actor("linear", LinearRegression(), pipeline())
    for _ in h3.train(actor, given, keys=KEYS, on_missing="fill"):
        pass
    rows = flights()[5:9]
    alone = actor.predict(rows)
    assert np.array_equal(alone, actor.predict({**given, "flights": rows}))
    saved = h3.load(actor.save(tmp_path / "linear.h3"))
    assert np.array_equal(saved.predict(rows), alone)
    held = prepare(actor.pipeline_, rows)
    assert len(held) == 4 and np.array_equal(actor.predict(held), alone)


def test_lookups_in_memory_are_asked_for_again():
    actor = h3.Actor("linear", LinearRegression(), pipeline())
    for _ in h3.train(actor, sources(), keys=KEYS, on_missing="fill"):
        pass
    with pytest.raises(
        DataError, match=r"Or pass the rows together with what they look up: \{'flights': rows, 'weather'"
    ):
        actor.predict(flights())
    assert len(actor.predict(sources())) == 60


def test_validation_rows_are_set_aside_first_and_look_up_the_same():
    actor = h3.Actor("linear", LinearRegression(), pipeline())
    records = list(h3.train(actor, sources(), keys=KEYS, on_missing="fill", validation=0.3))
    assert "val_loss" in records[-1]


def test_a_changed_lookup_is_prepared_again(tmp_path):
    planes().to_csv(tmp_path / "planes.csv", index=False)
    flights().to_parquet(tmp_path / "flights.parquet")
    weather().to_parquet(tmp_path / "weather.parquet")
    files = {n: tmp_path / f for n, f in (("flights", "flights.parquet"), ("weather", "weather.parquet"))}
    given = {**files, "planes": tmp_path / "planes.csv"}

    def again() -> list[str]:
        shown: list[str] = []
        prepare(
            pipeline(),
            given,
            keys=KEYS,
            on_missing="fill",
            to=tmp_path / "feed",
            progress=lambda what, done, total: shown.append(what),
        )
        return shown

    assert "writing" in again()
    assert again() == ["reused"]
    planes().assign(seats=1).to_csv(tmp_path / "planes.csv", index=False)
    assert "writing (route, weather reused)" in again()


@pytest.mark.parametrize(
    "given, keys, kind, words",
    [
        (flights(), None, UsageError, r"block 'weather' has a source of its own, 'weather', and one source came"),
        (sources(), {"weather": "origin"}, UsageError, r"source 'planes' has no key.*keys=\{'planes': \['tail'\]\}"),
        (sources(), {**KEYS, "wether": "x"}, UnknownName, "Did you mean 'weather'"),
        (
            sources(),
            {**KEYS, "planes": "tial"},
            UnknownName,
            r"column 'tial' in source 'flights' \(a DataFrame\), for keys=\{'planes': 'tial'\}\. Did you mean 'tail'",
        ),
        (
            sources(),
            {**KEYS, "planes": {"tail": "tailnum"}},
            UnknownName,
            r"column 'tailnum' in source 'planes'.*Did you mean 'tail'",
        ),
        (
            sources(flights=flights().assign(**{"planes.seats": 7.0})),
            KEYS,
            UsageError,
            r"'flights' has a column 'planes.seats'.*Call that source otherwise",
        ),
        (flights(), KEYS, UsageError, "expected a dict of two sources or more"),
        ({"flights": flights(), "weather": weather()}, {"weather": ["origin", "hour"]}, UnknownName, "'planes'.*block"),
        (
            sources(planes=planes().assign(tail=range(9))),
            KEYS,
            DataError,
            r"'tail' is .*string, 'planes.tail' is int64",
        ),
        (
            sources(weather=weather().astype({"hour": str})),
            KEYS,
            DataError,
            r"unlike types: 'hour' is timestamp.*pd.to_d",
        ),
        (
            sources(planes=planes().assign(tail=0.5)),
            KEYS,
            DataError,
            r"'tail' is .*string, 'planes.tail' is double\. Convert .*astype\(str\)",
        ),
        (
            sources(planes=planes().assign(tail=[["N1"]] * 9)),
            KEYS,
            DataError,
            r"'planes.tail' is list<.*Keys are .*convert 'planes.tail', .* by df\[c\].astype\(str\)",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_wrong_is_named(given, keys, kind, words):
    with pytest.raises(kind, match=words):
        prepare(pipeline(), given, keys=keys, on_missing="fill")


def test_the_first_source_needs_no_name():
    wrong = h3.Pipeline(h3.Preprocessor("d", ["distance"], source="flights"), label="delay")
    with pytest.raises(UsageError, match=r"gives the rows and needs no key\. Leave source= out"):
        prepare(wrong, sources(), keys=KEYS)
    with pytest.raises(UnknownName, match="on_missing 'dorp'.*Did you mean 'drop'"):
        prepare(pipeline(), sources(), keys=KEYS, on_missing="dorp")


def test_keys_may_have_other_names_there():
    other = planes().rename(columns={"tail": "tailnum"})
    feed = prepare(pipeline(), sources(planes=other), keys={**KEYS, "planes": {"tail": "tailnum"}}, on_missing="fill")
    assert (feed.arrays()[0] != prepare(pipeline(), sources(), keys=KEYS, on_missing="fill").arrays()[0]).sum() == 0


def looked_up(here: pa.Array, there: pa.Array, policies: Policies | None = None) -> list:
    """Which place of ``there`` each key finds."""
    base, other = pa.table({"k": here}), pa.table({"k": there, "at": pa.array(range(len(there)), pa.int64())})
    joined = Joined({"a": h3.read(base), "b": h3.read(other)}, {"b": "k"}, policies or Policies())
    return pa.concat_tables(joined.tables(["b.at"])).column(0).to_pylist()


BIG, TODAY = 2**63, 1_700_000_000
ALIKE = {
    "int8 uint32": (pa.array([1, 2], pa.int8()), pa.array([2, 1], pa.uint32())),
    "double int64": (pa.array([2.0, -1.0, 2.0**53 - 1]), pa.array([2**53 - 1, 2, -1])),
    "int16 float": (pa.array([3, 4], pa.int16()), pa.array([4, 3], pa.float32())),
    "double double": (pa.array([2.0, 1.0]), pa.array([1.0, 2.0])),
    "uint64 uint64": (pa.array([BIG, BIG + 1, 1], pa.uint64()), pa.array([BIG + 1, 1, BIG], pa.uint64())),
    "uint64 int64": (pa.array([7, 8], pa.uint64()), pa.array([8, 7, -1], pa.int64())),
    "dictionary string": (pa.array(["x", "y"]).dictionary_encode(), pa.array(["y", "x"], pa.large_string())),
    "ns s": (
        pa.array([TODAY * 10**9, (TODAY - 1) * 10**9], pa.timestamp("ns")),
        pa.array([TODAY - 1, TODAY], pa.timestamp("s")),
    ),
    "year 3000": (pa.array([10**16, -1], pa.timestamp("us")), pa.array([-1000, 5], pa.timestamp("ns"))),
    "zones": (pa.array([5, 6], pa.timestamp("us", "UTC")), pa.array([6, 5], pa.timestamp("us", "Asia/Tokyo"))),
    "time of day": (pa.array([5, 6], pa.time32("s")), pa.array([6 * 10**9, 5 * 10**9], pa.time64("ns"))),
    "duration": (pa.array([5, 6], pa.duration("s")), pa.array([6000, 5000], pa.duration("ms"))),
    "dates": (pa.array([5, 6], pa.date32()), pa.array([6 * 86_400_000, 5 * 86_400_000], pa.date64())),
    "decimals": (pa.array([5, 6], pa.int64()).cast(pa.decimal128(21, 2)), pa.array([6, 5]).cast(pa.decimal256(40, 2))),
    "nothing": (pa.nulls(2), pa.array(["a"])),
}


@pytest.mark.parametrize("name", ALIKE)
def test_alike_types_meet(name):
    here, there = ALIKE[name]
    # What Arrow has no text for is compared by what it is in seconds.
    told = [[_plain(value) for value in keys] for keys in (here, there)]
    expected = [told[1].index(value) if value is not None and value in told[1] else None for value in told[0]]
    assert looked_up(here, there, Policies("fill")) == expected
    assert name in ("year 3000", "nothing") or None not in expected


def _plain(value: pa.Scalar) -> object:
    if value.is_valid and pa.types.is_temporal(value.type) and hasattr(value.type, "unit"):
        unit = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}[value.type.unit]
        return value.value * unit
    return value.as_py()


def test_keys_that_differ_by_a_nanosecond_or_a_sign_are_different():
    nanoseconds = pa.array(range(TODAY * 10**9, TODAY * 10**9 + 60), pa.timestamp("ns"))
    assert looked_up(nanoseconds, nanoseconds) == list(range(60))
    # As bits they are the same.
    above, below = pa.array([2**64 - 1, BIG], pa.uint64()), pa.array([-1, -BIG], pa.int64())
    assert looked_up(above, below, Policies("fill")) == looked_up(below, above, Policies("fill")) == [None, None]


def test_whole_numbers_with_gaps_are_looked_up_as_pandas_has_them(tmp_path):
    gaps = pd.DataFrame({"k": [3.0, None, 1.0], "y": [0.0, 1.0, 2.0]})
    by = h3.Pipeline(h3.Preprocessor("b", ["v"], SimpleImputer(), source="b"), label="y")
    other = pd.DataFrame({"k": [1, 2, 3], "v": [10.0, 20.0, 30.0]})
    feed = prepare(by, {"a": gaps, "b": other}, keys={"b": "k"}, on_missing="fill", to=tmp_path)
    assert feed.manifest["counts"]["lookups"]["b"]["missing"] == 1
    assert (
        feed.arrays()[0].tolist()
        == prepare(by, {"a": gaps.astype({"k": "Int64"}), "b": other}, keys={"b": "k"}, on_missing="fill")
        .arrays()[0]
        .tolist()
    )
    assert looked_up(pa.array([float("nan"), 1.0]), pa.array([1, 2]), Policies("fill")) == [None, 0]
    assert looked_up(pa.array([2]), pa.array([float("nan"), float("nan"), 2.0])) == [2]


@pytest.mark.parametrize(
    ("value", "kind"), [(0.5, pa.float64()), (2.0**53, pa.float64()), (np.inf, pa.float64()), (2.0**24, pa.float32())]
)
def test_floats_that_are_no_whole_numbers_are_no_keys(value, kind):
    odd, whole = pa.array([1.0, value], kind), pa.array([1, 2])
    with pytest.raises(DataError, match=rf"key 'k' is {kind} and holds {value}.*Floats are keys where.*Int64"):
        looked_up(odd, whole)
    with pytest.raises(DataError, match=rf"key 'b.k' is {kind} and holds {value}"):
        looked_up(whole, odd)


KINDS = {
    "text": pd.Series(["1", "2"]),
    "whole number": pd.Series([1, 2]),
    "time": pd.Series(pd.to_datetime(["2024-01-01", "2024-01-02"])),
    "zone": pd.Series(pd.to_datetime(["2024-01-01", "2024-01-02"], utc=True)),
    "date": pd.Series(pd.to_datetime(["2024-01-01", "2024-01-02"])).dt.date,
    "dates as text": pd.Series(["2024-01-01", "2024-01-02"]),
    "bytes": pd.Series([b"1", b"2"]),
}
UNLIKE = [
    *[("text", other) for other in ("whole number", "time", "date", "bytes")],
    *[("whole number", "text"), ("time", "zone"), ("zone", "time"), ("time", "date"), ("date", "time")],
    *[("time", "dates as text"), ("date", "dates as text"), ("zone", "dates as text"), ("date", "zone")],
]


@pytest.mark.parametrize(("here", "there"), UNLIKE)
def test_the_cast_that_is_advised_makes_unlike_keys_alike(here, there):
    frames = pd.DataFrame({"k": KINDS[here]}), pd.DataFrame({"k": KINDS[there]})
    types = [str(h3.read(each).schema.field("k").type) for each in frames]
    with pytest.raises(DataError) as caught:
        Joined({"a": h3.read(frames[0]), "b": h3.read(frames[1])}, {"b": "k"})
    assert f"'k' is {types[0]}, 'b.k' is {types[1]}." in str(caught.value)
    cast = str(caught.value).rpartition(" by ")[2].partition(", or")[0].rstrip(".")
    converted = eval(cast, {"pd": pd, "df": frames[1], "c": "k"})
    Joined({"a": h3.read(frames[0]), "b": h3.read(frames[1].assign(k=converted))}, {"b": "k"})
    if there != "bytes" and here != "text":
        found = looked_up(*(pa.Array.from_pandas(each) for each in (frames[0]["k"], converted)))
        assert found == [0, 1]


def test_a_joined_source_is_read_as_it_is():
    joined = Joined({"a": h3.read(planes()), "b": h3.read(planes())}, {"b": "tail"})
    assert worlds.load(worlds.READ)(joined) is joined
