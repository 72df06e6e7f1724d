"""Servers go away, refuse and run full: preparing goes on by itself, or says what to do, and goes on later."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
import traceback
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import numpy as np
import pandas as pd
import pytest
import sqlalchemy as sa
from relay import Relay
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.preprocessing import StandardScaler

import h3lab as h3
from h3lab.errors import DataError, StorageError
from h3lab.feeds.feed import open_feed
from h3lab.preparing.prepare import prepare
from h3lab.sources import databases, sql
from h3lab.sources.files import Files

pytestmark = pytest.mark.service

ROWS, PARTS = 600, 6


class Far:
    """A server behind relays, that go and come together. ``url``: a folder of the test's own there."""

    def __init__(self, url: str, relays: list[Relay], environment: dict[str, str] | None = None) -> None:
        self.url, self.relays = url, relays
        self.environment = environment or {}

    def cut(self) -> None:
        for relay in self.relays:
            relay.cut()

    def mend(self) -> None:
        for relay in self.relays:
            relay.fate = lambda piece: None
            relay.mend()

    def silence(self) -> None:
        for relay in self.relays:
            relay.silence()

    def cut_after(self, pieces: int, then: float, holding: bytes = b"") -> None:
        """Cut in the middle of an answer, or behind these bytes of the so-and-so-many-th that has them; back ``then``
        seconds later."""
        left = [pieces]

        def fate(piece: bytes) -> int | None:
            left[0] -= holding in piece
            if left[0] != 0:
                return None
            left[0] = -1
            threading.Thread(target=self._die, args=(then,), daemon=True).start()
            return piece.index(holding) + len(holding) if holding else len(piece) // 2

        for relay in self.relays:
            relay.fate = fate

    def _die(self, then: float) -> None:
        self.cut()
        time.sleep(then)
        self.mend()


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("H3LAB_RETRY_SECONDS", "5")
    monkeypatch.setenv("H3LAB_TIMEOUT_SECONDS", "5")


@contextlib.contextmanager
def hdfs_behind(url: str, patch: pytest.MonkeyPatch) -> Iterator[Far]:
    port = int(url.rpartition(":")[2])
    with Relay("127.0.0.1", port) as names, Relay("localhost", port + 2) as data:
        proxies = {f"http://localhost:{port + 2}": f"http://127.0.0.1:{data.port}"}
        patch.setitem(fsspec.config.conf, "webhdfs", {"data_proxy": proxies})
        told = {"FSSPEC_WEBHDFS_DATA_PROXY": json.dumps(proxies), "FSSPEC_WEBHDFS": json.dumps({"data_proxy": proxies})}
        yield Far(f"webhdfs://root@127.0.0.1:{names.port}/{uuid.uuid4().hex[:8]}", [names, data], told)


@contextlib.contextmanager
def s3_behind(url: str, patch: pytest.MonkeyPatch) -> Iterator[Far]:
    import s3fs

    host, _, port = os.environ["AWS_ENDPOINT_URL"].rpartition("/")[2].partition(":")
    with Relay(host, int(port)) as relay:
        patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{relay.port}")
        s3fs.S3FileSystem.clear_instance_cache()
        yield Far(f"{url}/{uuid.uuid4().hex[:8]}", [relay])
        s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture(params=["hdfs", "s3"])
def far(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Far]:
    behind = {"hdfs": hdfs_behind, "s3": s3_behind}[request.param]
    with behind(request.getfixturevalue(request.param), monkeypatch) as found:
        yield found


@pytest.fixture
def database(service, postgres, monkeypatch) -> Iterator[Far]:
    monkeypatch.setattr(sql, "PART_ROWS", ROWS // PARTS)
    host, port = service("postgresql")
    frame().to_sql("rows", sa.create_engine(postgres, poolclass=sa.pool.NullPool), index_label="id")
    with Relay(host, port) as relay:
        yield Far(postgres.replace(f"{host}:{port}", f"127.0.0.1:{relay.port}"), [relay])


def frame() -> pd.DataFrame:
    n = np.arange(ROWS)
    words = np.array([f"word{i}" for i in range(97)])
    text = words[n % 97] + " " + words[n * 7 % 89] + " " + words[n * 11 % 83]
    return pd.DataFrame({"price": np.sin(n), "stars": n % 5, "title": text, "kind": (n % 3).astype(str)})


def pipeline(**settings) -> h3.Pipeline:
    return h3.Pipeline(
        h3.Preprocessor("numbers", ["price", "stars"], StandardScaler()),
        h3.Preprocessor("title", "title", TfidfVectorizer()),
        label="kind",
        **settings,
    )


def put(folder: str) -> str:
    """The rows as files of a folder; the glob that names them."""
    system, path = fsspec.core.url_to_fs(folder)
    system.makedirs(path, exist_ok=True)
    for number in range(PARTS):
        with system.open(f"{path}/rows-{number}.parquet", "wb") as file:
            frame()[number * ROWS // PARTS : (number + 1) * ROWS // PARTS].to_parquet(file)
    return f"{folder}/*.parquet"


def hashes(feed) -> list[str]:
    return [part["hash"] for part in feed.manifest["parts"]]


@pytest.fixture
def undisturbed(tmp_path) -> list[str]:
    return hashes(prepare(pipeline(), put(str(tmp_path / "raw")), to=f"memory://{tmp_path}/feed"))


@pytest.fixture
def reads(monkeypatch) -> list[int]:
    """Parts whose rows were asked for."""
    found = []

    def counted(read: Callable) -> Callable:
        def one(self, part, columns=None):
            found.append(part.index)
            return read(self, part, columns)

        return one

    for kind in (Files, sql.Sql):
        monkeypatch.setattr(kind, "read", counted(kind.read))
    return found


def at(what: str, done: int, then: Callable[[], None]) -> Callable[[str, int, int], None]:
    """A progress that does something once so many parts of a pass are done."""
    return lambda *step: then() if step[:2] == (what, done) else None


# ---- A source goes away -----------------------------------------------------------------------------------


@pytest.mark.parametrize("bytes_", [b"ype: ", b"PAR1"], ids=["head", "body"])
def test_a_file_server_that_dies_in_the_middle_of_an_answer_is_waited_for(far, tmp_path, undisturbed, caplog, bytes_):
    """Behind the name of a header, or in the bytes of a file. Python's HTTP takes a head that ends too soon for a whole
    one, of an answer without a length."""
    source = h3.read(put(far.url))
    source.parts()
    far.cut_after(3, then=0.6, holding=bytes_)
    assert hashes(prepare(pipeline(), source, to=tmp_path / "feed")) == undisturbed
    assert re.search(r"(s3|webhdfs)://.* is away \(.*\): asked again in .* s, for \d s", caplog.text)


def test_a_file_server_that_stays_away_is_named_and_what_is_done_is_not_done_again(
    far, tmp_path, undisturbed, reads, monkeypatch
):
    monkeypatch.setenv("H3LAB_RETRY_SECONDS", "0.4")
    source = h3.read(put(far.url))
    words = r"rows-3.parquet, part 3 .*cannot be read from .*(at http|root@127).*Nothing is lost.*do the same again"
    with pytest.raises(DataError, match=words):
        prepare(pipeline(), source, to=tmp_path / "feed", progress=at("writing", 3, far.cut))
    far.mend()
    reads.clear()
    feed = prepare(pipeline(), source, to=tmp_path / "feed")
    assert reads == [3, 4, 5] and feed.manifest["counts"]["reused"] == 3
    assert feed.manifest["counts"]["recalled"] == {"numbers": 6, "title": 6}
    assert hashes(feed) == undisturbed


def test_a_file_server_that_says_nothing_is_given_up(far, tmp_path, monkeypatch):
    source = h3.read(put(far.url))
    source.parts()
    monkeypatch.setenv("H3LAB_RETRY_SECONDS", "0.5")
    monkeypatch.setenv("H3LAB_TIMEOUT_SECONDS", "0.3")
    far.silence()
    with pytest.raises(DataError, match=r"(?i)rows-0.parquet, its first rows cannot be read.*time.*do the same again"):
        prepare(pipeline(), source, to=tmp_path / "feed")


def test_a_database_that_dies_in_the_middle_of_an_answer_is_waited_for(database, tmp_path, undisturbed, caplog):
    source = h3.read(database.url, table="rows", key="id")
    source.parts()
    database.cut_after(40, then=0.6)
    feed = prepare(pipeline(), source, to=tmp_path / "feed")
    database.mend()
    assert feed.spec.features and feed.arrays()[1].tolist() == frame()["kind"].tolist()
    assert re.search(r"postgresql.* is away \(.*\): asked again in .* s, for \d s", caplog.text)


def test_a_database_whose_connections_are_ended_is_asked_again(database, postgres, caplog):
    """As an administrator, or a restart, ends them."""
    source = h3.read(database.url, table="rows", key="id")
    administrator = sa.create_engine(postgres, poolclass=sa.pool.NullPool)
    ended = []

    def end_once(connection, *given):
        if not ended:
            ended.append(connection.connection.driver_connection.info.backend_pid)
            with administrator.begin() as other:
                other.execute(sa.text(f"SELECT pg_terminate_backend({ended[0]})"))

    sa.event.listen(databases.engine(source.base.url, 5.0), "before_cursor_execute", end_once)
    assert len(source) == ROWS and ended
    assert "terminating connection" in caplog.text and "asked again" in caplog.text


def test_a_database_that_stays_away_or_says_nothing_is_named(database, tmp_path, monkeypatch):
    source = h3.read(database.url, table="rows", key="id")
    source.parts()
    monkeypatch.setenv("H3LAB_RETRY_SECONDS", "0.4")
    words = r"table rows of postgresql.*, part 1 .*cannot be read.*Nothing is lost.*do the same again"
    with pytest.raises(DataError, match=words):
        prepare(pipeline(), source, to=tmp_path / "feed", progress=at("reading", 1, database.cut))
    database.mend()
    monkeypatch.setenv("H3LAB_TIMEOUT_SECONDS", "0.2")
    monkeypatch.setattr(databases, "QUERY_TIMES", 1)
    with pytest.raises(DataError, match=words):  # it takes connections, as a server that has frozen does
        prepare(pipeline(), source, to=tmp_path / "feed", progress=at("reading", 1, database.silence))


def test_a_query_that_is_never_answered_is_cut(database, monkeypatch):
    source = h3.read(database.url, query="SELECT 1 AS id, pg_sleep(0)::text AS slept", key="id")
    monkeypatch.setenv("H3LAB_TIMEOUT_SECONDS", "0.2")
    monkeypatch.setenv("H3LAB_RETRY_SECONDS", "0.3")
    monkeypatch.setattr(databases, "QUERY_TIMES", 1)
    source.base.query = "SELECT 1 AS id, pg_sleep(600)::text AS slept"
    with pytest.raises(DataError, match="its first rows cannot be read.*do the same again"):
        source.head()


# ---- A store goes away ------------------------------------------------------------------------------------


def files(far: Far) -> set[str]:
    """What lies in the folder of the feed."""
    system, path = fsspec.core.url_to_fs(f"{far.url}/feed")
    system.invalidate_cache()
    return {name.rpartition("/feed/")[2] for name in system.find(path)}


def named(*feeds) -> set[str]:
    """What should lie there: the manifests of these feeds, and what they name."""
    numbers = [feed.manifest["number"] for feed in feeds]
    own = {name for n in numbers for name in (f"manifest-{n:06d}.json", f"pipeline-{n}.h3lab")}
    return own | {f"parts/{part['file']}" for feed in feeds for part in feed.manifest["parts"]}


def test_a_store_that_goes_away_for_a_moment_is_waited_for(far, tmp_path, undisturbed, caplog):
    source = h3.read(put(str(tmp_path / "raw")))
    goes = at("writing", 2, lambda: far.cut_after(2, then=0.6))
    feed = prepare(pipeline(), source, to=f"{far.url}/feed", progress=goes)
    assert hashes(feed) == undisturbed and hashes(open_feed(f"{far.url}/feed")) == undisturbed
    assert feed.arrays()[1].tolist() == frame()["kind"].tolist()
    assert "asked again" in caplog.text and files(far) == named(feed)


def test_a_store_that_stays_away_keeps_the_old_feed_and_is_gone_on_with(far, tmp_path, reads, monkeypatch):
    source = h3.read(put(str(tmp_path / "raw")))
    old = prepare(pipeline(), source, to=f"{far.url}/feed")
    monkeypatch.setenv("H3LAB_RETRY_SECONDS", "0.4")
    words = r"feed cannot be written .* at .*: .*Nothing is lost.*do the same again.*still usable"
    with pytest.raises(StorageError, match=words):
        prepare(pipeline(seed=1, dtype="float32"), source, to=f"{far.url}/feed", progress=at("writing", 3, far.cut))
    far.mend()
    assert hashes(open_feed(f"{far.url}/feed")) == hashes(old)
    assert open_feed(f"{far.url}/feed").arrays()[1].tolist() == frame()["kind"].tolist()
    reads.clear()
    new = prepare(pipeline(seed=1, dtype="float32"), source, to=f"{far.url}/feed")
    assert reads == [3, 4, 5] and new.manifest["counts"]["reused"] == 3
    assert files(far) == named(old, new)


def test_a_store_that_does_not_answer_is_noticed_before_anything_is_read(far, tmp_path, reads, monkeypatch):
    source = h3.read(put(str(tmp_path / "raw")))
    prepare(pipeline(), source, to=f"{far.url}/feed")
    reads.clear()
    monkeypatch.setenv("H3LAB_RETRY_SECONDS", "0.4")
    monkeypatch.setenv("H3LAB_TIMEOUT_SECONDS", "0.3")
    for away in (far.silence, far.cut):
        away()
        with pytest.raises(StorageError, match=r"feed cannot be reached at .*: .*do the same again"):
            prepare(pipeline(seed=1), source, to=f"{far.url}/feed")
    assert reads == []


KILLED = """
    import os, signal, sys
    import fsspec
    from h3lab.preparing.prepare import prepare
    from h3lab.urls import reached
    import test_servers as t

    def deadly(call):
        def one(path, *given, **options):
            if sys.argv[3] in path:
                if sys.argv[3] == "parts/":  # half of it is there
                    file = system.open(path, "wb")
                    file.write(given[0][: len(given[0]) // 2])
                    file.flush(force=True)
                os.kill(os.getpid(), signal.SIGKILL)
            return call(path, *given, **options)
        return one

    system = reached(sys.argv[2])[0]
    # A manifest is renamed where there are renames; else an object is put.
    name = "mv" if "webhdfs" in sys.argv[2] and "manifest" in sys.argv[3] else "pipe_file"
    setattr(system, name, deadly(getattr(system, name)))
    prepare(t.pipeline(dtype="float32"), sys.argv[1], to=sys.argv[2])
"""


@pytest.mark.parametrize(
    ("far", "moment"), [("hdfs", "parts/"), ("hdfs", "manifest-"), ("s3", "manifest-")], indirect=["far"]
)
def test_a_writer_that_is_killed_at_a_far_store_leaves_the_old_feed(far, tmp_path, moment):
    raw, url = put(str(tmp_path / "raw")), f"{far.url}/feed"
    old = prepare(pipeline(), raw, to=url)
    here = Path(__file__).parent
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(KILLED), raw, url, moment],
        env={**os.environ, "PYTHONPATH": f"{here}:{here.parent}", **far.environment},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert hashes(open_feed(url)) == hashes(old) and len(open_feed(url).arrays()[1]) == ROWS
    new = prepare(pipeline(dtype="float32"), raw, to=url)
    assert new.manifest["counts"]["reused"] == (PARTS if moment == "manifest-" else 0)
    assert files(far) == named(old, new)


# ---- A server refuses -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def guarded() -> Iterator[str]:
    """A PostgreSQL of this module's own that asks for a password: its URL for the user `keeper`, without one."""
    programs = [shutil.which("initdb"), *map(str, Path("/usr/lib/postgresql").glob("*/bin/initdb"))]
    if not any(programs):
        pytest.skip("no initdb")
    initdb = Path(next(filter(None, reversed(programs))))
    folder = Path(tempfile.mkdtemp(prefix="h3pg-"))
    # It refuses to run as root.
    own = {"user": "postgres"} if os.geteuid() == 0 else {}
    if own:
        shutil.chown(folder, "postgres")
    (folder / "password").write_text(SECRET)
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
    quiet = {"check": True, "stdout": subprocess.DEVNULL, **own}
    make = ["-D", folder / "data", "-U", "keeper", "-A", "scram-sha-256", "--pwfile", folder / "password", "--no-sync"]
    subprocess.run([initdb, *make], **quiet)
    options = f"-p {port} -h 127.0.0.1 -k {folder} -c fsync=off"
    control = [initdb.with_name("pg_ctl"), "-D", folder / "data", "-w"]
    subprocess.run([*control, "-l", folder / "log", "-o", options, "start"], **quiet)
    try:
        yield f"postgresql+psycopg://keeper@127.0.0.1:{port}/postgres"
    finally:
        subprocess.run([*control, "-m", "immediate", "stop"], **quiet)
        shutil.rmtree(folder)


SECRET = "ge-heim-7"


def with_password(url: str, password: str) -> str:
    return url.replace("@", f":{password}@", 1)


def everything(error: BaseException) -> str:
    """All that a notebook shows of an error."""
    return "".join(traceback.format_exception(error)) + repr(error)


def test_a_database_that_refuses_names_server_and_user_at_once(guarded, caplog, tmp_path):
    url = with_password(guarded, SECRET)
    frame()[:9].to_sql("rows", sa.create_engine(url, poolclass=sa.pool.NullPool), index_label="id")
    source = h3.read(url, table="rows", key="id")
    assert len(source) == 9
    words = r"keeper:\*\*\*@127.0.0.1:\d+.*password authentication failed.*Look at user, password or key"
    with pytest.raises(DataError, match=words) as caught:
        h3.read(with_password(guarded, "wrong-" + SECRET), table="rows", key="id")
    assert SECRET not in everything(caught.value)
    source.base.url = with_password(guarded, "changed-" + SECRET)  # meanwhile, by somebody else
    with pytest.raises(DataError, match=words) as caught:
        prepare(pipeline(), source, to=tmp_path / "feed")
    assert SECRET not in everything(caught.value) + caplog.text
    assert "asked again" not in caplog.text


def test_an_s3_that_refuses_names_server_and_key_at_once(s3, tmp_path, monkeypatch, caplog):
    import requests
    import s3fs

    raw = put(f"{s3}/{uuid.uuid4().hex[:8]}")
    reset = os.environ["AWS_ENDPOINT_URL"] + "/moto-api/reset-auth"
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    s3fs.S3FileSystem.clear_instance_cache()
    requests.post(reset, data=b"0").raise_for_status()
    try:
        words = r"at http://127.0.0.1:\d+ with key tester: .*Look at user, password or key"
        with pytest.raises(DataError, match=words) as caught:
            h3.read(raw)
        with pytest.raises(StorageError, match=words) as again:
            prepare(pipeline(), put(str(tmp_path / "raw")), to=f"{s3}/feed")
    finally:
        requests.post(reset, data=b"inf").raise_for_status()
        s3fs.S3FileSystem.clear_instance_cache()
    assert SECRET not in everything(caught.value) + everything(again.value) + caplog.text
    assert "asked again" not in caplog.text


# ---- No space ---------------------------------------------------------------------------------------------


def test_a_used_up_quota_leaves_the_old_feed(hdfs, tmp_path, caplog):
    import requests

    url = f"{hdfs}/{uuid.uuid4().hex[:8]}"
    raw = put(str(tmp_path / "raw"))
    old = prepare(pipeline(), raw, to=url)
    system, path = fsspec.core.url_to_fs(url)
    put_quota = {"op": "SETQUOTA", "namespacequota": 9_000, "storagespacequota": 1_000, "user.name": "root"}
    requests.put(f"{system.url}{path}", params=put_quota).raise_for_status()
    words = r"quota.* is exceeded.*Free some space, or choose another place.*still usable"
    with pytest.raises(StorageError, match=words):
        prepare(pipeline(dtype="float32"), raw, to=url)
    assert hashes(open_feed(url)) == hashes(old) and len(open_feed(url).arrays()[1]) == ROWS
    assert "asked again" not in caplog.text


# ---- Passwords --------------------------------------------------------------------------------------------


def written_below(*folders: Path) -> str:
    """All bytes of all files there."""
    found = [path.read_bytes() for folder in folders for path in folder.rglob("*") if path.is_file()]
    return b"\n".join(found).decode("latin-1")


def test_a_password_is_in_nothing_that_a_preparing_writes_or_shows(
    guarded, hdfs, tmp_path, monkeypatch, capsys, caplog
):
    """Of a database, of files and of a store; while all is well, and while it is not."""
    monkeypatch.setenv("H3LAB_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("H3LAB_RETRY_SECONDS", "0.3")
    caplog.set_level("DEBUG", logger="h3lab")
    url = with_password(guarded, SECRET)
    frame().to_sql("secrets", sa.create_engine(url, poolclass=sa.pool.NullPool), index_label="id")
    # WebHDFS without Kerberos takes any user, and the password goes into a header.
    folder = hdfs.replace("root@", f"root:{SECRET}@") + f"/{uuid.uuid4().hex[:8]}"
    rows, files = h3.read(url, table="secrets", key="id"), h3.read(put(folder + "/raw"))
    shown = []
    with Relay("127.0.0.1", int(hdfs.rpartition(":")[2])) as relay:
        away = folder.replace(hdfs.rpartition(":")[2], str(relay.port))
        for source, to in ((rows, tmp_path / "feed"), (files, f"{away}/feed")):
            feed = prepare(pipeline(), source, to=to)
            feed.arrays()
            shown += [
                repr(source),
                source._repr_mimebundle_(),
                repr(feed),
                feed._repr_mimebundle_(),
                str(feed.report()),
            ]
            shown += [json.dumps(feed.manifest), str(source.describe()), repr(h3.open_feed(to))]
        relay.cut()
        with pytest.raises(StorageError) as stays_away:
            prepare(pipeline(seed=1), files, to=f"{away}/feed")
        with pytest.raises(StorageError) as no_feed:
            h3.open_feed(f"{away}/feed")
    with pytest.raises(DataError) as no_file:
        h3.read(f"{folder}/nothing/*.csv")
    with pytest.raises(DataError) as no_table:
        h3.read(url, query="SELECT nothing FROM secrets", key="id")
    shown += [everything(caught.value) for caught in (stays_away, no_feed, no_file, no_table)]
    assert "asked again" in caplog.text
    system, path = fsspec.core.url_to_fs(folder)
    shown += [system.cat_file(name).decode("latin-1") for name in system.find(f"{path}/feed")]
    shown += [written_below(tmp_path), caplog.text, *capsys.readouterr()]
    assert not any(SECRET in str(text) for text in shown)
