"""Whatever is packed comes back bit for bit; whatever else comes is refused before it can do harm."""

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from h3lab.errors import DamagedData
from h3lab.serial import codec

DTYPES = st.one_of(
    npst.boolean_dtypes(),
    npst.integer_dtypes(),
    npst.unsigned_integer_dtypes(),
    npst.floating_dtypes(),
    npst.complex_number_dtypes(),
    npst.unicode_string_dtypes(max_len=5),
    npst.byte_string_dtypes(max_len=5),
    npst.datetime64_dtypes(),
)
ARRAYS = npst.arrays(DTYPES, npst.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))
LEAVES = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary(), ARRAYS)
TREES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text().filter(lambda k: k != "$h3"), inner, max_size=4)
    ),
    max_leaves=20,
)


def same(one: object, two: object) -> bool:
    if isinstance(one, np.ndarray):
        little = one.astype(one.dtype.newbyteorder("<"))
        return (
            isinstance(two, np.ndarray)
            and little.dtype == two.dtype
            and one.shape == two.shape
            and little.tobytes() == two.tobytes()
        )
    if isinstance(one, dict):
        return isinstance(two, dict) and list(one) == list(two) and all(same(one[k], two[k]) for k in one)
    if isinstance(one, list | tuple):
        return isinstance(two, list) and len(one) == len(two) and all(map(same, one, two))
    return type(one) is type(two) and (one == two or (one != one and two != two))


@settings(deadline=None, max_examples=200)
@given(TREES)
def test_trees_come_back(tree):
    assert same(tree, codec.unpack(codec.pack(tree)))


@settings(deadline=None, max_examples=100)
@given(TREES, st.data())
def test_a_truncated_file_is_damaged(tree, data):
    packed = codec.pack(tree)
    cut = data.draw(st.integers(0, len(packed) - 1))
    with pytest.raises(DamagedData):
        codec.unpack(packed[:cut])


def test_arrays_own_their_data():
    packed = bytearray(codec.pack({"a": np.zeros(3)}))
    array = codec.unpack(packed)["a"]
    packed[-64:] = b"\xff" * 64
    array += 1
    assert array.tolist() == [1, 1, 1]


def test_arrays_lie_at_multiples_of_64():
    packed = codec.pack([np.full(3, 7, np.uint8), np.full(5, 9, np.uint8)])
    assert packed.index(bytes([7] * 3)) % 64 == 0 and packed.index(bytes([9] * 5)) % 64 == 0


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "0 bytes"),
        (b"PK\x03\x04" + bytes(60), "do not begin"),
        (struct.pack("<6sHQ", codec.MAGIC, codec.FORMAT + 1, 0), "Update h3lab"),
        (struct.pack("<6sHQ", codec.MAGIC, codec.FORMAT, 10) + b"not json!!", "header"),
    ],
)
def test_foreign_bytes_say_what_they_are(data, words):
    with pytest.raises(DamagedData, match=words):
        codec.unpack(data)


@pytest.mark.parametrize(
    "entry", [["|O", [1], 0], ["<f8", [2], 1 << 40], ["<f8", [-1], 0], ["<f8", [1], -8], ["<f8", [9], 0]]
)
def test_a_forged_header_reaches_nowhere(entry):
    header = b'{"tree":{"$h3":"array","at":0},"arrays":[%s],"size":8}' % str(entry).replace("'", '"').encode()
    data = struct.pack("<6sHQ", codec.MAGIC, codec.FORMAT, len(header)) + header + bytes(8)
    with pytest.raises(DamagedData):
        codec.unpack(data)


@pytest.mark.parametrize(
    ("tree", "path"),
    [
        ({"a": [1, object()]}, r"tree\['a'\]\[1\] is a object"),
        ({"a": {1: 2}}, r"tree\['a'\] has keys"),
        ([np.array([None])], r"tree\[0\]"),
        ({"$h3": 1}, "keys"),
    ],
)
def test_what_cannot_be_carried_is_named_by_its_path(tree, path):
    with pytest.raises(TypeError, match=path):
        codec.pack(tree)


@pytest.mark.parametrize("tree", ['{"$h3":"array","at":7}', '{"$h3":"float"}', '{"$h3":"bytes","at":"x"}'])
def test_a_forged_tree_is_damaged(tree):
    header = b'{"tree":%s,"arrays":[],"size":0}' % tree.encode()
    with pytest.raises(DamagedData):
        codec.unpack(struct.pack("<6sHQ", codec.MAGIC, codec.FORMAT, len(header)) + header)


def test_numpy_scalars_become_plain_values():
    assert codec.unpack(codec.pack([np.int8(3), np.float64(0.5), np.bool_(True), np.str_("a")])) == [3, 0.5, True, "a"]
