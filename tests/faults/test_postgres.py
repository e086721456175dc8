"""The PostgreSQL of the fault tests: the one that is fetched where a machine has none starts, stops and answers."""

from __future__ import annotations

import psycopg2
import pytest

from tests.faults.postgres import Postgres
from tests.faults.world import closing_all


@pytest.mark.slow
def test_the_postgresql_of_the_wheel_keeps_what_it_was_told_when_it_is_stopped_in_mid_work() -> None:
    server = Postgres("wheel")
    with closing_all(server):
        dsn = server.url.replace("+psycopg2", "")
        with psycopg2.connect(dsn) as one, one.cursor() as cursor:
            cursor.execute("CREATE TABLE told (word text)")
            cursor.execute("INSERT INTO told VALUES ('kept')")
        server.stop()
        with pytest.raises(psycopg2.OperationalError):
            psycopg2.connect(dsn)
        server.start()
        with psycopg2.connect(dsn) as again, again.cursor() as cursor:
            cursor.execute("SELECT word FROM told")
            assert cursor.fetchall() == [("kept",)]
