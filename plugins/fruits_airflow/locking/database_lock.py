"""One writer per database: a lock object in the lake, `locks/<database>.json`.

The object is created with `If-None-Match: *` and changed or removed only with the ETag that was read, so that one of
several concurrent writers succeeds. It contains its owner and a deadline. Past the deadline, and when neither run nor
cluster of its owner is alive, the next run takes it over. Each time the owner takes it again, the object changes, so
that whoever read it before cannot remove it.

A run that works on several databases takes their locks in one order, so that no two runs wait for each other, and all
or none, so that no run waits for a database whose holder is only waiting.
"""

import json
import logging
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from fruits_airflow.config.errors import ConfigError, LockHeld
from fruits_airflow.emr.clusters import RunKey
from fruits_airflow.storage.lake import Lake

log = logging.getLogger(__name__)

_ATTEMPTS = 5  # an attempt fails only if another run takes, releases or prolongs the lock at the same moment


@dataclass(frozen=True)
class LockRecord:
    """Content of a lock object."""

    owner: RunKey  # run that holds the lock
    region: str  # region of the owner's cluster
    taken_at: datetime  # when the owner first took it
    deadline: datetime  # until when no other run may take it over
    etag: str  # ETag of the object, for a conditional change

    def __str__(self) -> str:
        owner = self.owner
        return (
            f"{owner.dag_id} run {owner.run_id} of deployment {owner.deployment_id} "
            f"(since {self.taken_at:%Y-%m-%d %H:%M} UTC, until {self.deadline:%Y-%m-%d %H:%M} UTC)"
        )


@dataclass(frozen=True)
class DatabaseLock:
    """The lock of a database, as a run uses it."""

    lake: Lake  # the lake bucket
    database: str  # name of the database
    owner: RunKey  # the run that takes and releases the lock
    region: str  # region of that run's cluster
    is_gone: Callable[[LockRecord], bool]  # whether neither run nor cluster of a lock's owner is alive

    @property
    def key(self) -> str:
        """Key of the lock object."""
        return f"locks/{self.database}.json"

    def take(self, until: datetime) -> None:
        """Take the lock until a deadline, or prolong it if this run holds it; never shorten it.

        Raises:
            LockHeld: Another run holds it, and has not abandoned it.
        """
        for _ in range(_ATTEMPTS):
            if self.lake.write_once(self.key, self._content(until, datetime.now(UTC))):
                log.info("Took the lock of %s, until %s", self.database, until.isoformat(timespec="seconds"))
                return
            record = self.read()
            if record is None:
                continue
            if record.owner == self.owner:
                if self._replace(record, max(until, record.deadline), record.taken_at):
                    return
            elif not self.is_abandoned(record):
                raise LockHeld(f"{self.database} is locked by {record}; {self.lake.uri(self.key)}")
            elif self._replace(record, until, datetime.now(UTC)):
                log.warning("Took the lock of %s over from %s, which is gone", self.database, record)
                return
        raise LockHeld(f"the lock of {self.database} changed hands {_ATTEMPTS} times; {self.lake.uri(self.key)}")

    def release(self, record: LockRecord | None) -> bool:
        """Remove the lock in the version that was read, if this run holds it, and return whether it was removed.

        A lock that was taken again since then stays: the run was cleared and is working again.
        """
        if record is None:
            return False
        if record.owner != self.owner:
            log.info("%s stays locked by %s", self.database, record)
            return False
        released = self.remove(record)
        if released:
            log.info("Released the lock of %s", self.database)
        else:
            log.warning("The lock of %s, which %s held, has changed or gone", self.database, record)
        return released

    def remove(self, record: LockRecord) -> bool:
        """Remove the lock in the version that was read; return False if that is not the present version."""
        return self.lake.remove_version(self.key, record.etag)

    def read(self) -> LockRecord | None:
        """Read the lock object, if it exists.

        Raises:
            ConfigError: The object is not a lock.
        """
        version = self.lake.read_version(self.key)
        if version is None:
            return None
        try:
            content = json.loads(version[0])
            return LockRecord(
                owner=RunKey(**content["owner"]),
                region=content["region"],
                taken_at=datetime.fromisoformat(content["taken_at"]),
                deadline=datetime.fromisoformat(content["deadline"]),
                etag=version[1],
            )
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"{self.lake.uri(self.key)} is not a lock ({error}): check that no run works on {self.database}, "
                "then remove it"
            ) from error

    def is_abandoned(self, record: LockRecord) -> bool:
        """Whether the lock is past its deadline and its owner is gone."""
        return record.deadline < datetime.now(UTC) and self.is_gone(record)

    def _replace(self, record: LockRecord, until: datetime, taken_at: datetime) -> bool:
        return self.lake.replace_version(self.key, self._content(until, taken_at), record.etag)

    def _content(self, until: datetime, taken_at: datetime) -> bytes:
        content = {
            "owner": asdict(self.owner),
            "region": self.region,
            "taken_at": taken_at.isoformat(),
            "deadline": until.isoformat(),
            "asked_at": datetime.now(UTC).isoformat(),  # gives each version a new ETag
        }
        return json.dumps(content, indent=1).encode()


def take_all(locks: Iterable[DatabaseLock], until: datetime) -> None:
    """Take or prolong every lock of a run without a cluster, in the order of the databases, or hold none of them.

    Raises:
        LockHeld: Another run holds one of them, and has not abandoned it.
    """
    ordered = sorted(locks, key=lambda lock: lock.database)
    for number, lock in enumerate(ordered):
        try:
            lock.take(until)
        except Exception:
            for held in ordered[:number]:
                held.release(held.read())
            raise
