"""A spec turns labels into codes and back, and itself into JSON."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from h3lab.errors import DataError
from h3lab.feeds.feed import Feed
from h3lab.spec import Block, Spec

LABELS = st.one_of(
    st.lists(st.integers(-(2**40), 2**40), min_size=1, max_size=20),
    st.lists(st.text(st.characters(exclude_characters="\0"), max_size=8), min_size=1, max_size=20),
    st.lists(st.booleans(), min_size=1, max_size=5),
)


@settings(deadline=None, max_examples=60)
@given(LABELS)
def test_labels_go_there_and_back(y):
    feed = Feed.of(np.zeros((len(y), 1)), y, task="classification")
    spec = Spec.from_json(json.loads(json.dumps(feed.spec.to_json())))
    assert spec == feed.spec
    assert list(spec.labels) == sorted(set(y))
    codes = spec.encode(y)
    assert codes.dtype == np.int64 and set(codes.tolist()) == set(range(spec.classes))
    assert spec.decode(codes).tolist() == list(y)


def test_unknown_labels_are_named():
    spec = Spec("classification", 1, (1,), 3, 3, ("a", "b", "c"))
    with pytest.raises(DataError, match=r"2 rows.*d, e.*3 classes: a, b, c"):
        spec.encode(["a", "d", "e"])


def test_labels_beyond_either_end_are_unknown():
    spec = Spec("classification", 1, (1,), 2, 2, (3, 5))
    for wrong in (2, 4, 6):
        with pytest.raises(DataError, match=str(wrong)):
            spec.encode([3, wrong])


def test_text_and_numbers_are_never_compared():
    spec = Spec("classification", 1, (1,), 2, 2, (0, 1))
    with pytest.raises(DataError, match="astype"):
        spec.encode(["0", "1"])


def test_quantities_pass_unchanged():
    spec = Spec("regression", 2, (2,), 1)
    assert spec.encode([1, 2]).dtype == np.float64
    assert spec.decode(np.array([0.5])).tolist() == [0.5]


def test_it_says_what_it_is():
    assert str(Spec("classification", 64, (64,), 10, 10)) == "classification, 10 classes, 64 features"
    assert str(Spec("regression", 4, (4,), 1)) == "regression, 4 features"


def test_blocks_keep_their_order_and_form():
    blocks = {n: Block(n, (2, 3), "float32", n == "z") for n in ("z", "a")}
    spec = Spec("regression", 12, (12,), 1, blocks=blocks)
    again = Spec.from_json(json.loads(json.dumps(spec.to_json())))
    assert list(again.blocks) == ["z", "a"] and again.blocks == blocks
