"""Signed files: what this user's key has not signed is not opened, whoever wrote it."""

import os
import pickle
import stat
import subprocess
import sys

import pytest

from h3lab.errors import Untrusted
from h3lab.serial import signed


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("H3LAB_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def exploded(tmp_path):
    return tmp_path / "exploded"


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_code_and_objects_come_back(tmp_path):
    factor = 3

    class Local:
        def __init__(self, value):
            self.value = value

    back = signed.loads(signed.dumps({"f": lambda x: x * factor, "object": Local(7), "type": Local}))
    assert back["f"](5) == 15 and back["object"].value == 7
    signed.dump([1, 2], tmp_path / "launch.bin")
    assert signed.load(tmp_path / "launch.bin") == [1, 2]
    assert stat.S_IMODE((tmp_path / "launch.bin").stat().st_mode) == 0o600


def test_the_key_is_the_users_alone(home):
    first = signed.key()
    assert len(first) == 32 and signed.key() == first
    assert stat.S_IMODE((home / "keys" / "user.key").stat().st_mode) == 0o600
    assert stat.S_IMODE((home / "keys").stat().st_mode) == 0o700
    assert os.listdir(home / "keys") == ["user.key"]


def test_processes_that_begin_at_once_agree_on_a_key(home):
    children = [
        subprocess.Popen(
            [sys.executable, "-c", "from h3lab.serial import signed; print(signed.key().hex())"],
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    assert {child.communicate(timeout=60)[0].strip() for child in children} == {signed.key().hex()}
    assert os.listdir(home / "keys") == ["user.key"]


def test_every_changed_byte_is_found(exploded):
    good = signed.dumps(Bomb(exploded))
    for place in range(len(good)):
        bad = bytearray(good)
        bad[place] ^= 0x10
        with pytest.raises(Untrusted):
            signed.loads(bytes(bad))
    for length in (0, 1, 8, 39, 40, 41, len(good) - 1):
        with pytest.raises(Untrusted):
            signed.loads(good[:length])
    with pytest.raises(Untrusted):
        signed.loads(good + b".")
    assert not exploded.exists()
    signed.loads(good).close()  # the bomb works where the signature does
    assert exploded.exists()


def test_what_another_key_signed_is_not_opened(exploded, tmp_path, monkeypatch):
    foreign = signed.dumps(Bomb(exploded))
    (tmp_path / "launch.bin").write_bytes(foreign)
    monkeypatch.setenv("H3LAB_HOME", str(tmp_path / "elsewhere"))
    with pytest.raises(Untrusted, match=r"launch\.bin is not signed with the key of this H3LAB_HOME.*set H3LAB_HOME"):
        signed.load(tmp_path / "launch.bin")
    assert not exploded.exists()


@pytest.mark.parametrize("wrap", [lambda p: p, lambda p: signed.MAGIC + p, lambda p: signed.MAGIC + bytes(32) + p])
def test_a_bare_pickle_is_not_opened(wrap, exploded):
    with pytest.raises(Untrusted, match="these bytes"):
        signed.loads(wrap(pickle.dumps(Bomb(exploded))))
    assert not exploded.exists()
