"""Tables of real databases are the rows that were written, in the order of their key, part by part."""

import datetime as dt
import decimal
import pickle
import socket
import threading
import tracemalloc
import uuid

import numpy as np
import pyarrow as pa
import pytest
import sqlalchemy as sa
from relay import Relay
from sklearn.preprocessing import StandardScaler

import h3lab as h3
from h3lab import servers
from h3lab.errors import DamagedData, DataError, MissingExtra, UnknownName, UsageError
from h3lab.preparing.prepare import prepare
from h3lab.serial import signed
from h3lab.source import Part
from h3lab.sources import databases, formats, sql
from h3lab.testing import check_source

ROWS = 300


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(sql, "PART_ROWS", 64)


@pytest.fixture
def sqlite(tmp_path):
    return f"sqlite:///{tmp_path}/a.db"


@pytest.fixture(params=["sqlite", "postgres"])
def url(request):
    return request.getfixturevalue(request.param)


def write(url: str, name: str = "flights", rows: int = ROWS, primary: bool = True) -> list[dict]:
    """A table of every usual type, with nulls, in no order."""
    table = sa.Table(
        name,
        sa.MetaData(),
        sa.Column("origin", sa.String(3), primary_key=primary),
        sa.Column("number", sa.Integer, primary_key=primary),
        sa.Column("delay", sa.Float),
        sa.Column("fare", sa.Numeric(8, 2)),
        sa.Column("late", sa.Boolean),
        sa.Column("day", sa.Date),
        sa.Column("at", sa.DateTime),
        sa.Column("note", sa.Text),
    )
    wanted = [
        {
            "origin": ["EWR", "JFK", "LGA"][n % 3],
            "number": n // 3,
            "delay": None if n % 7 == 0 else n / 8,
            "fare": decimal.Decimal(n) / 4,
            "late": n % 2 == 0,
            "day": dt.date(2013, 1, 1) + dt.timedelta(days=n),
            "at": dt.datetime(2013, 1, 1) + dt.timedelta(minutes=n),
            "note": f"ü{n}" if n % 5 else None,
        }
        for n in range(rows)
    ]
    engine = sa.create_engine(url, poolclass=sa.pool.NullPool)
    table.create(engine)
    if rows:
        with engine.begin() as connection:
            connection.execute(table.insert(), [wanted[n] for n in np.random.default_rng(0).permutation(rows)])
    return sorted(wanted, key=lambda row: (row["origin"], row["number"]))


def execute(url: str, *statements: str) -> None:
    with sa.create_engine(url, poolclass=sa.pool.NullPool).begin() as connection:
        for statement in statements:
            connection.execute(sa.text(statement))


def test_a_table_keeps_the_promises_of_a_source(sqlite, service):
    write(sqlite)
    check_source(h3.read(sqlite, table="flights"))


def test_a_table_of_a_server_keeps_the_promises_of_a_source(service):
    host, port = service("postgresql")
    url, name = f"postgresql+psycopg://postgres@{host}:{port}/test", f"h3_{uuid.uuid4().hex[:8]}"
    write(url, name)
    try:
        check_source(h3.read(url, table=name))
    finally:
        execute(url, f"DROP TABLE {name}")


def test_rows_come_with_their_types_in_the_order_of_the_primary_key(url):
    wanted = write(url)
    source = h3.read(url, table="flights")
    rows = [row for table in source.tables() for row in table.to_pylist()]
    assert rows == wanted
    sizes = [part.rows for part in source.parts()]
    assert sum(sizes) == ROWS and all(32 <= size <= 96 for size in sizes)
    assert source.head(2)["origin"].tolist() == ["EWR", "EWR"]


def test_a_part_asks_for_its_rows_alone(url, monkeypatch):
    write(url)
    source = h3.read(url, table="flights", key="at")
    asked = []
    engine = databases.engine(source.base.url, servers.TIMEOUT_SECONDS)
    sa.event.listen(engine, "after_cursor_execute", lambda *a: asked.append(a[1].rowcount))
    parts = source.parts()
    for part in reversed(parts):
        assert source.read(part, ["note"]).num_rows == part.rows
    assert max(asked) <= 96 or url.startswith("sqlite")  # SQLite's driver does not count


def test_a_query_is_a_source_too(url):
    wanted = write(url)
    source = h3.read(url, query="SELECT number, delay * 2 AS twice FROM flights WHERE origin = 'JFK'", key="number")
    rows = [row for table in source.tables() for row in table.to_pylist()]
    assert [row["number"] for row in rows] == [row["number"] for row in wanted if row["origin"] == "JFK"]
    assert source.schema.field("twice").type == pa.float64()


def test_a_query_without_a_value_in_its_first_rows_has_the_type_of_the_later_ones(url):
    execute(url, "CREATE TABLE late (id INTEGER PRIMARY KEY, y FLOAT, at TIMESTAMP, empty FLOAT)")
    rows = [{"id": n, "y": n / 2 if n > 1100 else None, "at": "2024-01-01" if n > 1100 else None} for n in range(1200)]
    with sa.create_engine(url, poolclass=sa.pool.NullPool).begin() as connection:
        connection.execute(sa.text("INSERT INTO late (id, y, at) VALUES (:id, :y, :at)"), rows)
    source = h3.read(url, query="SELECT * FROM late", key="id")
    assert source.schema.field("y").type == pa.float64()
    pipeline = h3.Pipeline(h3.Preprocessor("n", ["id"], StandardScaler()), label="y")
    assert prepare(pipeline, source, on_null_label="drop").spec.task == "regression"
    if not url.startswith("sqlite"):  # whose driver tells no types
        assert source.schema.field("at").type == pa.timestamp("us")
        assert source.schema.field("empty").type == pa.float64()


def test_a_query_has_the_types_of_its_table(postgres):
    write(postgres)
    assert (
        h3.read(postgres, query="SELECT * FROM flights", key="at").schema == h3.read(postgres, table="flights").schema
    )
    query = "SELECT 1 AS id, now() AS t, localtimestamp AS l, ARRAY[1.5::float8] AS a, sum(1.5) AS s, now()::time AS c"
    assert h3.read(postgres, query=query, key="id").schema.types == [
        *(pa.int64(), pa.timestamp("us", tz="UTC"), pa.timestamp("us"), pa.list_(pa.float64()), pa.float64()),
        pa.time64("us"),
    ]


@pytest.mark.parametrize(
    "ending", [";", " ; ;\n", " -- the end", "; -- the end; or not", " /* ; */;", " WHERE note <> ';--'", " -- it's;"]
)
def test_a_query_may_end_as_people_end_one(url, ending):
    write(url)
    source = h3.read(url, query=f"SELECT number, note, ' :x' AS colon FROM flights{ending}", key="number")
    wanted = ROWS * 4 // 5 if "note" in ending else ROWS
    assert len(source) == source.read(source.parts()[0]).num_rows + sum(p.rows for p in source.parts()[1:]) == wanted
    assert source.head(1)["colon"].tolist() == [" :x"]


KEYS = {
    "uuid": ("uuid", "md5(i::text)::uuid"),
    "enum": ("mood", "(ARRAY['sad','ok','happy'])[1 + i % 3]::mood"),
    "char": ("char(12)", "'k' || i"),
    "bigint": ("bigint", "i * 10000000000"),
    "decimal": ("numeric(12, 2)", "i + 0.25"),
    "time zone": ("timestamptz", "'2024-03-30 00:00+00'::timestamptz + i * interval '1 hour'"),
    "boolean": ("boolean", "i % 2 = 0"),
    "text": ("text", "md5(i::text) || CASE WHEN i % 2 = 0 THEN 'Ä' ELSE 'a' END"),
    "inet": ("inet", "'10.0.0.1'::inet + i"),
}


@pytest.mark.parametrize("kind", KEYS)
@pytest.mark.parametrize("form", ["table", "query"])
def test_every_type_may_be_a_key_that_knows_a_row(postgres, kind, form):
    type_, value = KEYS[kind]
    execute(
        postgres,
        "CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy')",
        f"CREATE TABLE k (k {type_}, i int, PRIMARY KEY (k, i))".replace(":", "\\:"),
        f"INSERT INTO k SELECT {value}, i FROM generate_series(1, {ROWS}) i".replace(":", "\\:"),
    )
    source = h3.read(postgres, key=["k", "i"], **({"table": "k"} if form == "table" else {"query": "SELECT * FROM k"}))
    parts = source.parts()
    rows = [row["i"] for part in parts for row in source.read(part).to_pylist()]
    assert len(parts) > 2 and sorted(rows) == list(range(1, ROWS + 1))
    keys = [key for part in parts for key in source.keys(part, source.read(part)).tolist()]
    assert len(set(keys)) == ROWS


@pytest.mark.parametrize("key", [3, [], ["number", 3]])
def test_a_key_that_names_no_column_is_refused_before_anything_is_asked(key):
    with pytest.raises(UsageError, match=r"expected a column or columns, for example key='id'"):
        h3.read("sqlite:///nowhere.db", table="flights", key=key)


@pytest.mark.parametrize("type_", ["numeric", "float"])
def test_a_key_that_knows_no_row_is_named_with_the_cast(postgres, type_):
    execute(postgres, f"CREATE TABLE k (k {type_} PRIMARY KEY)", "INSERT INTO k VALUES (0.5), (1.5)")
    with pytest.raises(UsageError, match=r"the key 'k' is double; .*CAST\(k AS VARCHAR\(40\)\) AS k"):
        h3.read(postgres, table="k")
    assert len(h3.read(postgres, query="SELECT CAST(k AS VARCHAR(40)) AS k FROM k", key="k")) == 2
    assert len(h3.read(postgres, query="SELECT CAST(k AS numeric(9, 2)) AS k FROM k", key="k").head()) == 2


def write_wide(url: str, rows: int, characters: int) -> None:
    execute(url, "CREATE TABLE wide (id INTEGER PRIMARY KEY, note TEXT)")
    with sa.create_engine(url, poolclass=sa.pool.NullPool).begin() as connection:
        wide = [{"n": n, "note": "x" * characters} for n in range(rows)]
        connection.execute(sa.text("INSERT INTO wide VALUES (:n, :note)"), wide)


def test_parts_have_fewer_rows_where_rows_are_large(url, monkeypatch):
    monkeypatch.setattr(sql, "PART_ROWS", 4096)
    monkeypatch.setattr(formats, "PART_BYTES", 1 << 20)
    execute(url, "CREATE TABLE wide (id INTEGER PRIMARY KEY, note TEXT)")
    with sa.create_engine(url, poolclass=sa.pool.NullPool).begin() as connection:
        connection.execute(
            sa.text("INSERT INTO wide VALUES (:n, :text)"), [{"n": n, "text": "x" * 2000} for n in range(3000)]
        )
    source = h3.read(url, table="wide")
    tables = list(source.tables())
    assert len(tables) > 3 and max(table.nbytes for table in tables) < 2 << 20
    assert [n for table in tables for n in table["id"].to_pylist()] == list(range(3000))


def test_few_rows_at_a_time_are_objects_of_python(url):
    """Their column and the driver's rows beside it would take several times the table's memory."""
    execute(url, "CREATE TABLE wide (id INTEGER PRIMARY KEY, note TEXT)")
    with sa.create_engine(url, poolclass=sa.pool.NullPool).begin() as connection:
        connection.execute(
            sa.text("INSERT INTO wide VALUES (:n, :text)"), [{"n": n, "text": "x" * 5000} for n in range(4096)]
        )
    base = h3.read(url, table="wide").base
    part = Part(0, 4096, "wide", 0, {"from": [0], "to": [4095]})
    base.read(part)
    tracemalloc.start()
    try:
        assert base.read(part).nbytes > 20_000_000
        assert tracemalloc.get_traced_memory()[1] < 5_000_000  # Arrow's own memory is not counted
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kind", ["date", "timestamp"])
def test_a_value_that_python_cannot_hold_is_named_with_its_column(postgres, kind):
    execute(
        postgres,
        f"CREATE TABLE t (id INTEGER PRIMARY KEY, x FLOAT, until {kind})",
        "INSERT INTO t VALUES (1, 2.5, 'infinity'), (2, 1, '2024-01-01')",
    )
    source = h3.read(postgres, table="t")
    with pytest.raises(
        DataError, match=r"part 0 .*: column 'until' has a value that cannot be read: .*Cast it in a query"
    ):
        source.read(source.parts()[0])
    assert source.read(source.parts()[0], ["x"]).num_rows == 2  # and is no matter where nobody asks for it


def test_a_file_means_the_same_in_every_process(tmp_path, monkeypatch):
    write(f"sqlite:///{tmp_path}/a.db")
    monkeypatch.chdir(tmp_path)
    source = h3.read("sqlite:///a.db", table="flights")
    monkeypatch.chdir("/")
    databases.engine.cache_clear()  # another process has none yet
    assert len(list(source.tables())) == len(source.parts())
    assert h3.worlds.reopen(source.describe()).head().equals(source.head())


def test_a_file_that_is_not_there_is_not_made(tmp_path, monkeypatch):
    write(f"sqlite:///{tmp_path}/a b?%.db".replace("?%", "%3F%25"))
    with pytest.raises(DataError, match=r"there is no file .*Did you mean 'a b\?%.db'"):
        h3.read(f"sqlite:///{tmp_path}/a c.db", table="flights")
    with pytest.raises(DataError, match="is no file; expected one of sqlite"):
        h3.read(f"sqlite:///{tmp_path}", table="flights")
    source = h3.read(f"sqlite:///{tmp_path}/a b%3F%25.db", table="flights")
    part = source.parts()[0]
    (tmp_path / "a b?%.db").unlink()
    with pytest.raises(DataError, match="unable to open database file"):  # as on an engine that does not see it
        source.read(part)
    assert not list(tmp_path.iterdir())


def test_rows_of_the_same_key_stay_in_one_part(url):
    write(url, primary=False)
    for source in (h3.read(url, table="flights", key="origin"), h3.read(url, table="flights", key=["late", "origin"])):
        parts = source.parts()
        assert sum(part.rows for part in parts) == len(source) == ROWS
        rows = [row for part in parts for row in source.read(part).to_pylist()]
        assert len({(row["origin"], row["number"]) for row in rows}) == ROWS
        assert rows == [row for part in parts for row in source.read(part).to_pylist()]


def test_keys_that_the_database_takes_for_equal_stay_in_one_part(sqlite):
    values = ", ".join(f"('{('a', 'A')[n % 2]}{n // 2:03}', {n})" for n in range(ROWS))
    execute(sqlite, "CREATE TABLE t (k TEXT COLLATE NOCASE, n INTEGER)", f"INSERT INTO t VALUES {values}")
    source = h3.read(sqlite, table="t", key="k")
    assert len(source.parts()) > 3
    assert [row["n"] // 2 for table in source.tables() for row in table.to_pylist()] == [n // 2 for n in range(ROWS)]


def test_a_row_more_or_less_changes_the_cuts_beside_it_alone(url):
    write(url)
    before = [dict(part.position) for part in h3.read(url, table="flights").parts()]
    assert [dict(part.position) for part in h3.read(url, table="flights").parts()] == before
    execute(url, "DELETE FROM flights WHERE origin = 'EWR' AND number = 50")
    execute(url, "INSERT INTO flights (origin, number) VALUES ('EWR', -1)")
    after = h3.read(url, table="flights").parts()
    assert sum(part.rows for part in after) == ROWS
    assert len([part for part in after if dict(part.position) in before]) >= len(before) - 2


def test_keys_do_not_depend_on_the_rows_beside(url):
    write(url)
    source = h3.read(url, table="flights")
    before = dict(zip(rows_of(source), keys_of(source), strict=True))
    execute(url, "DELETE FROM flights WHERE number % 2 = 0")
    after = h3.read(url, table="flights")
    assert all(before[row] == key for row, key in zip(rows_of(after), keys_of(after), strict=True))


def rows_of(source):
    return [(r["origin"], r["number"]) for t in source.tables(["origin", "number"]) for r in t.to_pylist()]


def keys_of(source):
    return [k for part in source.parts() for k in source.keys(part, source.read(part, ["note"])).tolist()]


def test_rows_that_came_later_are_no_part_of_it(url):
    write(url)
    source = h3.read(url, table="flights")
    parts = source.parts()
    execute(url, "INSERT INTO flights (origin, number) VALUES ('ZZZ', 1)")
    assert sum(source.read(part).num_rows for part in parts) == ROWS
    execute(url, "INSERT INTO flights (origin, number) VALUES ('EWR', -1)")
    assert sum(source.read(part).num_rows for part in parts[1:]) == ROWS - parts[0].rows


def test_a_table_that_changed_is_noticed(url):
    write(url)
    source = h3.read(url, table="flights")
    part = source.parts()[0]
    execute(url, "DELETE FROM flights WHERE origin = 'EWR' AND number = 3")
    with pytest.raises(DamagedData, match=f"{part.rows} rows were found before, {part.rows - 1} now; the table has"):
        source.read(part)


def test_an_empty_table_has_no_rows(url):
    write(url, rows=0)
    source = h3.read(url, table="flights")
    assert len(source) == 0
    assert source.read(source.parts()[0]).schema.equals(source.schema)


def test_what_is_wrong_is_named(url):
    write(url, primary=False)
    with pytest.raises(UsageError, match=r"no primary key.*key=\['origin'\]"):
        h3.read(url, table="flights")
    with pytest.raises(UsageError, match="expected one of them"):
        h3.read(url)
    with pytest.raises(UnknownName, match="Did you mean 'flights'"):
        h3.read(url, table="flihgts")
    with pytest.raises(UnknownName, match="Did you mean 'number'"):
        h3.read(url, table="flights", key="nubmer")
    with pytest.raises(DataError, match="no note, which is their key"):
        h3.read(url, table="flights", key="note").parts()
    with pytest.raises(DataError, match="SELEC|syntax error"):
        h3.read(url, query="SELEC 1", key="a")
    with pytest.raises(UsageError, match="for databases"):
        h3.read([{"a": 1}], table="flights")


def test_a_value_of_another_type_is_named(sqlite):
    execute(
        sqlite, "CREATE TABLE t (id INTEGER PRIMARY KEY, price FLOAT)", "INSERT INTO t VALUES (1, 2.5), (2, 'dear')"
    )
    source = h3.read(sqlite, table="t")
    with pytest.raises(DataError, match=r"part 0 .*column 'price' is double, and 'dear' came"):
        source.read(source.parts()[0])


def test_a_server_that_is_not_there_is_named_without_the_password():
    with socket.socket() as held:  # bound, and nobody listens
        held.bind(("127.0.0.1", 0))
        url = f"postgresql+psycopg://me:geheim@127.0.0.1:{held.getsockname()[1]}/test"
        with pytest.raises(DataError, match="its columns cannot be read") as caught:
            h3.read(url, table="flights")
    assert "geheim" not in str(caught.value) and "me:***@" in str(caught.value)


def test_refused_credentials_are_named(service):
    host, port = service("postgresql")
    with pytest.raises(DataError, match="nobody_here"):
        h3.read(f"postgresql+psycopg://nobody_here:geheim@{host}:{port}/test", table="flights")


def test_what_is_no_lost_connection_is_not_waited_for(sqlite, service, tmp_path, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: pytest.fail(f"waited for {seconds} s"))
    write(sqlite)
    source = h3.read(sqlite, table="flights")
    part = source.parts()[0]
    execute(sqlite, "DROP TABLE flights")
    (tmp_path / "junk.db").write_text("no database" * 100)
    host, port = service("postgresql")
    for ask in (
        lambda: source.read(part),
        lambda: h3.read(f"sqlite:///{tmp_path}/junk.db", table="flights"),
        lambda: h3.read(f"postgresql+psycopg://postgres@{host}:{port}/nowhere", table="flights"),
    ):
        with pytest.raises(DataError, match="no such table|not a database|does not exist") as caught:
            ask()
        assert type(caught.value) is DataError  # the name that a traceback begins with


def test_a_password_is_never_told(sqlite):
    write(sqlite)
    source = h3.read(sqlite, table="flights")
    source.base.url = "postgresql+psycopg://me:top/geheim@127.0.0.1/test"
    assert "geheim" not in f"{source!r} {source.describe()} {source.title}"
    for wrong in ("se@geheim@127.0.0.1/x", "geheim", "geheim/x"):
        with pytest.raises(UsageError, match=r"%40|its port is no number") as caught:
            h3.read(f"postgresql+psycopg://me:{wrong}", table="flights")
        assert "geheim" not in str(caught.value)
    with pytest.raises(DataError, match=r"password, which is not kept.*pgpass"):
        h3.sources.sql.reopen(source.base.describe())


def test_a_server_that_dies_in_the_middle_is_waited_for(service, postgres):
    """Through a relay that is cut while a part is read, and comes back."""
    wanted = write(postgres)
    host, port = service("postgresql")
    with Relay(host, port) as relay:
        source = h3.read(postgres.replace(f"{host}:{port}", f"127.0.0.1:{relay.port}"), table="flights")
        parts = source.parts()
        rows = source.read(parts[0]).to_pylist()
        relay.cut()
        threading.Timer(0.3, relay.mend).start()
        rows += [row for part in parts[1:] for row in source.read(part).to_pylist()]
    assert rows == wanted


def test_a_server_that_stays_away_is_an_error_that_says_how_to_go_on(service, postgres, monkeypatch):
    monkeypatch.setenv("H3LAB_RETRY_SECONDS", "0.1")
    write(postgres)
    host, port = service("postgresql")
    with Relay(host, port) as relay:
        source = h3.read(postgres.replace(f"{host}:{port}", f"127.0.0.1:{relay.port}"), table="flights")
        part = source.parts()[1]
        relay.cut()
        with pytest.raises(DataError, match=r"part 1 .*cannot be read.*Nothing is lost"):
            source.read(part)


def test_a_missing_driver_is_a_pip_line():
    with pytest.raises(MissingExtra, match="pip install oracledb"):
        h3.read("oracle+oracledb://me@127.0.0.1/x", table="t")


def test_it_travels(url):
    write(url)
    source = h3.read(url, table="flights")
    assert signed.loads(signed.dumps(source)).head().equals(source.head())
    assert len(pickle.dumps(source)) < 4000


def test_a_table_is_prepared(sqlite, tmp_path):
    write(sqlite)
    pipeline = h3.Pipeline(h3.Preprocessor("numbers", ["number", "fare"], StandardScaler()), label="late")
    feed = prepare(pipeline, h3.read(sqlite, table="flights"), to=tmp_path / "feed")
    X, y = feed.arrays()
    assert X.shape == (ROWS, 2) and len(y) == ROWS
    assert np.allclose(X.mean(axis=0), 0, atol=1e-12)
