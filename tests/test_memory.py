"""Memory: of the machine, or of the container where that has less."""

from h3lab import memory


def test_what_is_free_is_less_than_there_is():
    assert 2**20 < memory.free_memory() <= memory.whole_memory() < 2**50


def limited(folder, files):
    folder.mkdir(parents=True)
    for name, value in files.items():
        (folder / name).write_text(value)


def test_the_limit_of_a_container_counts(tmp_path, monkeypatch):
    """Both versions of control groups; one without a limit says "max", or a number beyond any memory."""
    for name, files in {
        "two": {"memory.max": "1000000", "memory.current": "300000", "memory.stat": "anon 1\ninactive_file 50000\n"},
        "one/memory": {
            "memory.limit_in_bytes": "1000000",
            "memory.usage_in_bytes": "300000",
            "memory.stat": "inactive_file 1\ntotal_inactive_file 50000\n",
        },
    }.items():
        limited(tmp_path / name, files)
        monkeypatch.setattr(memory, "_GROUPS", tmp_path / name.removesuffix("/memory"))
        assert (memory.whole_memory(), memory.free_memory()) == (1e6, 750_000.0)
    limited(tmp_path / "none", {"memory.max": "max", "memory.current": "3", "memory.stat": ""})
    monkeypatch.setattr(memory, "_GROUPS", tmp_path / "none")
    assert memory.whole_memory() > 2**20
