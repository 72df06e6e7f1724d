"""The journal: every record once, whoever writes, dies, begins again or reads in between."""

import json
import math
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from h3lab.running import journal
from h3lab.running.journal import Cursor, Reader, Writer


def record(step, **values):
    return {"step": step, "epoch": 1, "seconds": step / 10, **values}


def write(folder, attempt, steps, from_step=1):
    writer = Writer(folder, attempt, from_step)
    for step in steps:
        writer.record(record(step, loss=step + attempt / 10))
    writer.close()


def steps(folder):
    reader = Reader(folder)
    reader.poll()
    return [r["step"] for r in reader.records]


def test_it_is_json_lines_with_one_segment_an_attempt(tmp_path):
    write(tmp_path, 1, [1, 2])
    lines = [json.loads(line) for line in (tmp_path / "0001.jsonl").read_text().splitlines()]
    assert lines[0] == {"event": "attempt", "attempt": 1, "from_step": 1, "at": lines[0]["at"]}
    assert lines[1:] == [record(1, loss=1.1), record(2, loss=2.1)]


def test_records_are_flushed_in_blocks_and_events_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(journal, "FLUSH_SECONDS", 1e9)
    writer = Writer(tmp_path, 1, 1)
    reader = Reader(tmp_path)
    assert reader.poll().events[0]["event"] == "attempt"
    writer._flushed = math.inf  # the clock of the machine may stand near its start
    for step in range(1, 101):
        writer.record(record(step))
    assert not reader.poll()
    writer.event("set", values={"lr": 0.1})
    news = reader.poll()
    assert [r["step"] for r in news.records] == list(range(1, 101))
    assert news.events[0]["values"] == {"lr": 0.1}
    monkeypatch.setattr(journal, "FLUSH_SECONDS", -math.inf)
    writer.record(record(101))
    assert [r["step"] for r in reader.poll().records] == [101]
    writer.record(record(102))
    writer.close()
    writer.close()
    assert reader.poll().records and not reader.poll()
    assert writer.size == (tmp_path / "0001.jsonl").stat().st_size


def test_an_attempt_that_repeats_steps_takes_the_place_of_the_older_ones(tmp_path):
    write(tmp_path, 1, range(1, 11))
    reader = Reader(tmp_path)
    reader.poll()
    write(tmp_path, 2, range(8, 13), from_step=8)
    news = reader.poll()
    assert news.drop_from == 8
    assert [r["step"] for r in reader.records] == list(range(1, 13))
    assert [r["loss"] for r in reader.records][6:9] == [7.1, 8.2, 9.2]
    assert journal.last_step(tmp_path) == 12
    write(tmp_path, 3, [1], from_step=1)
    reader.poll()
    assert [r["step"] for r in reader.records] == [1] and steps(tmp_path) == [1]


def test_an_attempt_that_died_at_once_drops_what_it_would_have_repeated(tmp_path):
    write(tmp_path, 1, range(1, 11))
    write(tmp_path, 2, [], from_step=6)
    assert steps(tmp_path) == [1, 2, 3, 4, 5]
    write(tmp_path, 3, [9, 10], from_step=9)
    assert steps(tmp_path) == [1, 2, 3, 4, 5, 9, 10]


def test_nobody_else_writes_the_same_attempt(tmp_path):
    writer = Writer(tmp_path, 1, 1)
    with pytest.raises(FileExistsError):
        Writer(tmp_path, 1, 1)
    writer.close()


def test_a_line_is_read_when_it_is_whole(tmp_path):
    write(tmp_path, 1, [1])
    reader = Reader(tmp_path)
    reader.poll()
    with open(tmp_path / "0001.jsonl", "ab") as file:
        file.write(b'{"step":2,"epo')
        file.flush()
        assert not reader.poll() and not reader.poll()
        file.write(b'ch":1,"seconds":0.2}\n{"step":3')
        file.flush()
        assert [r["step"] for r in reader.poll().records] == [2]


def test_the_end_of_a_line_that_was_never_finished_is_passed_over(tmp_path):
    write(tmp_path, 1, [1, 2, 3])
    with open(tmp_path / "0001.jsonl", "ab") as file:
        file.write(b'{"step":4,"epoch":1')  # its rank was killed here
    reader = Reader(tmp_path)
    reader.poll()
    write(tmp_path, 2, [3, 4], from_step=3)
    reader.poll()
    assert [r["loss"] for r in reader.records] == [1.1, 2.1, 3.2, 4.2]


@pytest.mark.parametrize("seed", range(20))
def test_however_it_grows_a_viewer_ends_with_the_same(tmp_path, seed):
    """Segments appear byte by byte while it is read: the cursor loses nothing and doubles nothing."""
    draw = random.Random(seed)
    source, growing = tmp_path / "source", tmp_path / "growing"
    growing.mkdir()
    start = 1
    for attempt in (1, 2, 3):
        last = start + draw.randrange(0, 12)
        write(source, attempt, range(start, last), from_step=start)
        start = max(1, last - draw.randrange(0, 6))
    reader = Reader(growing)
    for path in sorted(source.glob("*.jsonl")):
        data = path.read_bytes() + draw.choice([b"", b'{"step":99,"ep'])
        while data:
            cut = draw.randrange(1, 120)
            with open(growing / path.name, "ab") as file:
                file.write(data[:cut])
            data = data[cut:]
            if draw.random() < 0.4:
                reader.poll()
    reader.poll()
    whole = Reader(source)
    whole.poll()
    assert reader.records == whole.records
    assert reader.events == whole.events


def test_many_cursors_are_independent(tmp_path):
    write(tmp_path, 1, [1, 2, 3])
    first = journal.read(tmp_path)
    assert journal.read(tmp_path, first.cursor).cursor == first.cursor
    assert [r["step"] for r in journal.read(tmp_path, Cursor()).records] == [1, 2, 3]
    assert not journal.read(tmp_path / "nothing here")


def test_a_limit_gives_it_in_pieces(tmp_path):
    write(tmp_path, 1, range(1, 200))
    write(tmp_path, 2, range(150, 300), from_step=150)
    seen, cursor, pieces = [], Cursor(), 0
    while news := journal.read(tmp_path, cursor, limit=500):
        if news.drop_from is not None:
            seen = [r for r in seen if r["step"] < news.drop_from]
        seen += news.records
        cursor, pieces = news.cursor, pieces + 1
    assert [r["step"] for r in seen] == list(range(1, 300)) and pieces > 10


def test_what_is_no_number_comes_through(tmp_path):
    writer = Writer(tmp_path, 1, 1)
    writer.record(record(1, loss=math.nan, rate=math.inf))
    writer.close()
    reader = Reader(tmp_path)
    reader.poll()
    assert math.isnan(reader.records[0]["loss"]) and reader.records[0]["rate"] == math.inf


WRITES_FOR_EVER = """
import sys
from pathlib import Path
from h3lab.running.journal import Writer
writer = Writer(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
step = int(sys.argv[3])
while True:
    writer.record({"step": step, "epoch": 1, "seconds": 0.0, "note": "x" * 200})
    if step % 7 == 0:
        writer.flush()
    step += 1
"""


def test_a_writer_that_is_killed_leaves_whole_records(tmp_path):
    reader = Reader(tmp_path)
    for attempt in (1, 2, 3):
        start = max(1, len(reader.records) - 5)
        arguments = [str(tmp_path), str(attempt), str(start)]
        child = subprocess.Popen([sys.executable, "-c", WRITES_FOR_EVER, *arguments])
        try:
            wanted = len(reader.records) + 300
            while len(reader.records) < wanted:
                assert child.poll() is None
                reader.poll()
        finally:
            child.send_signal(signal.SIGKILL)
            child.wait()
        reader.poll()
        assert [r["step"] for r in reader.records] == list(range(1, len(reader.records) + 1))
    assert steps(tmp_path) == [r["step"] for r in reader.records]


FILLS_THE_DISK = """
import resource, sys
from pathlib import Path
from h3lab.running import journal
journal.FLUSH_SECONDS = -1.0
writer = journal.Writer(Path(sys.argv[1]), 1, 1)
limits = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (3000, limits[1]))
step, failed = 0, 0
while step < 100:
    step += 1
    try:
        writer.record({"step": step, "epoch": 1, "seconds": 0.0})
    except OSError:
        failed += 1
        if failed == 5:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
writer.close()
print(failed)
"""


def test_a_disk_that_is_full_for_a_while_loses_nothing(tmp_path):
    """The system takes a part of a line and then refuses; the next flush goes on within that line."""
    run = subprocess.run(
        [sys.executable, "-c", FILLS_THE_DISK, str(tmp_path)], capture_output=True, text=True, timeout=60
    )
    assert run.stdout.strip() == "5", run.stderr
    assert steps(Path(tmp_path)) == list(range(1, 101))
