"""Encrypt what Airflow's database holds under the first of the Fernet keys.

`airflow rotate-fernet-key` does the same, and fails on waits: Airflow 3 stores their arguments as plain JSON.
"""

from typing import Any

from airflow.models import Connection, Trigger, Variable
from airflow.models.connection_test import ConnectionTestRequest
from airflow.utils.session import create_session
from sqlalchemy import select

ENCRYPTED: tuple[Any, ...] = (
    select(Connection).where(Connection.is_encrypted | Connection.is_extra_encrypted),
    select(Variable).where(Variable.is_encrypted),
    select(ConnectionTestRequest).where(ConnectionTestRequest.is_encrypted | ConnectionTestRequest.is_extra_encrypted),
    select(Trigger).where(~Trigger.encrypted_kwargs.startswith("{")),
)

with create_session() as session:
    for rows in ENCRYPTED:
        for row in session.scalars(rows):
            row.rotate_fernet_key()
