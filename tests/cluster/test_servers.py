"""A server goes away while engines prepare: their workers wait for it, and the notebook is told."""

import threading
import uuid

import numpy as np
import pytest
import sqlalchemy as sa
from relay import Relay
from sklearn.preprocessing import StandardScaler

import h3lab as h3
from h3lab.home import home

from .conftest import until

pytestmark = pytest.mark.service

ROWS, SECRET = 300_000, "ge-heim-8"


@pytest.fixture
def table(postgres):
    """Some parts of rows on a server."""
    name = f"rows_{uuid.uuid4().hex[:8]}"
    rows = f"SELECT n AS id, n % 97 AS x, (n % 3)::text AS kind FROM generate_series(0, {ROWS - 1}) n"
    with sa.create_engine(postgres, poolclass=sa.pool.NullPool).begin() as connection:
        connection.execute(sa.text(f"CREATE TABLE {name} AS {rows}"))
    return name


def test_engines_wait_for_a_database_the_notebook_says_so_and_nobody_the_password(
    lab, postgres, service, table, tmp_path, caplog, capsys
):
    host, port = service("postgresql")
    pipeline = h3.Pipeline(h3.Preprocessor("x", ["x"], StandardScaler()), label="kind")
    with Relay(host, port) as relay:
        # This server trusts whoever comes from here; a password is passed on all the same.
        url = postgres.replace(f"postgres@{host}:{port}", f"postgres:{SECRET}@127.0.0.1:{relay.port}")
        source = h3.read(url, table=table, key="id")
        assert len(list(source.parts())) > 2
        relay.cut()

        def mend():
            until(lambda: "asked again" in caplog.text, what="the notebook says that the server is away")
            relay.mend()

        threading.Thread(target=mend).start()
        feed = lab.prepare(pipeline, source, to=tmp_path / "feed")
        assert feed.arrays()[1].tolist() == (np.arange(ROWS) % 3).astype(str).tolist()
        assert "slot" in caplog.text
        shown = [repr(feed), feed.manifest, caplog.text, *capsys.readouterr()]
        shown += [path.read_bytes().decode("latin-1") for path in (tmp_path / "feed").rglob("*") if path.is_file()]
        shown += [path.read_text() for path in home().rglob("*.log")]
        assert not any(SECRET in str(text) for text in shown)
