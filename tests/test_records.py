"""Records: dicts of a step as lines of JSON that any reader reads, and back."""

import json
import math

import numpy as np
import pytest
import torch

from h3lab import records

STEP = {"step": 3, "epoch": 1, "seconds": 0.25}


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"loss": 0.1 + 0.2, "accuracy": 1.0},
        {"loss": 1e-300, "rate": 5e-324, "big": 1.7976931348623157e308},
        {"note": 'text with "quotes", a line\nbreak and ümläuts \u2028', "none": None, "flag": True, "count": 2**70},
        {"loss": math.inf, "other": -math.inf},
    ],
)
def test_a_line_comes_back_bit_for_bit(values):
    record = {**STEP, **values}
    line = records.encode(record)
    assert "\n" not in line
    assert records.decode(line) == record == records.decode(line.encode())


@pytest.mark.parametrize(
    "nan", [math.nan, np.float64("nan"), np.float32("nan"), np.array(np.nan), torch.tensor(math.nan)]
)
def test_what_is_no_number_is_null_and_named(nan):
    line = records.encode({**STEP, "loss": nan, "high": np.float32(np.inf), "fine": 0.5})
    strict = json.loads(line, parse_constant=pytest.fail)  # NaN and Infinity are no JSON
    assert strict["loss"] is None and strict["high"] is None and strict["fine"] == 0.5
    assert strict["nonfinite"] == {"loss": "nan", "high": "inf"}
    back = records.decode(line)
    assert math.isnan(back.pop("loss")) and back == {**STEP, "high": math.inf, "fine": 0.5}


@pytest.mark.parametrize("value", [np.float32(0.5), np.int64(7), np.array(0.5), torch.tensor(0.5), np.bool_(True)])
def test_numbers_of_numpy_and_torch_become_pythons(value):
    back = records.decode(records.encode({**STEP, "value": value}))
    assert back["value"] == value.item() and type(back["value"]) is type(value.item())


@pytest.mark.parametrize("value", [object(), {1, 2}, b"bytes"])
def test_other_things_are_refused(value):
    with pytest.raises(TypeError, match=f"numbers, text and None; {type(value).__name__} came"):
        records.encode({**STEP, "value": value})


def test_encoding_leaves_the_record_as_it_was():
    record = {**STEP, "loss": math.nan}
    records.encode(record)
    assert list(record) == [*STEP, "loss"] and math.isnan(record["loss"])


def test_metrics_are_what_is_neither_axis_nor_bookkeeping():
    assert records.metrics({**STEP, "loss": 1.0, "val_loss": 2.0, "nonfinite": {}}) == {"loss": 1.0, "val_loss": 2.0}


def test_columns_have_equal_length():
    table = records.columns(
        [{**STEP, "loss": 1.0}, {**STEP, "step": 4, "loss": 0.5, "val_loss": 0.7}, {"step": 5, "note": "x"}]
    )
    assert list(table) == ["step", "epoch", "seconds", "loss", "val_loss", "note"]
    assert table["step"] == [3, 4, 5] and table["epoch"] == [1, 1, None]
    assert table["val_loss"] == [None, 0.7, None] and table["note"] == [None, None, "x"]
    assert records.columns(iter([])) == {"step": [], "epoch": [], "seconds": []}
