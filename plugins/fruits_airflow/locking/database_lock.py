"""One writer per database: a lock object in the lake, `locks/<database>.json`.

Nightly run, upkeep and erasure never work on one database at once. The object is created with `If-None-Match: *` and
changed or removed only with the ETag that was read, so that of several at once one succeeds. It names its owner and a
deadline; past the deadline, and when nothing of its owner is left, the next run takes it over. Each time the owner asks
for it, the object changes: who has read it before can no longer remove it.

Who works on several databases takes their locks together: in one order, so that no two wait for each other; and all or
none, so that nobody waits for a database whose holder does nothing but wait.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from fruits_airflow.config.errors import ConfigError, LockHeld
from fruits_airflow.emr.clusters import RunKey
from fruits_airflow.storage.lake import Lake

log = logging.getLogger(__name__)

_ROUNDS = 5  # each is lost only to another run that has just taken, released or prolonged the lock


@dataclass(frozen=True)
class Holding:
    """What a lock object says.

    Attributes:
        owner: the run that holds the lock.
        region: where the owner's cluster would be.
        taken_at: since when.
        deadline: until when nobody may take it away.
        etag: of the object, for a change on condition.
    """

    owner: RunKey
    region: str
    taken_at: datetime
    deadline: datetime
    etag: str

    def __str__(self) -> str:
        owner = self.owner
        return (
            f"{owner.dag_id} run {owner.run_id} of deployment {owner.deployment_id} "
            f"(since {self.taken_at:%Y-%m-%d %H:%M} UTC, until {self.deadline:%Y-%m-%d %H:%M} UTC)"
        )


@dataclass(frozen=True)
class DatabaseLock:
    """The lock of one database, as one run sees it.

    Attributes:
        lake: the lake bucket.
        database: which.
        owner: this run.
        region: where this run's cluster would be.
        is_gone: whether nothing of a holder is left, neither its run nor its cluster.
    """

    lake: Lake
    database: str
    owner: RunKey
    region: str
    is_gone: Callable[[Holding], bool]

    @property
    def key(self) -> str:
        """Key of the lock object."""
        return f"locks/{self.database}.json"

    def take(self, until: datetime) -> None:
        """Takes the lock, or prolongs it when this run has it.

        Args:
            until: the deadline, with a time zone; a later one that is there stays.

        Raises:
            LockHeld: another run has it, and it is not abandoned.
        """
        for _ in range(_ROUNDS):
            if self.lake.write_once(self.key, self._note(until, datetime.now(UTC))):
                log.info("Took the lock of %s, until %s", self.database, until.isoformat(timespec="seconds"))
                return
            holding = self.holding()
            if holding is None:
                continue
            if holding.owner == self.owner:
                if self._replace(holding, max(until, holding.deadline), holding.taken_at):
                    return
            elif not self.is_abandoned(holding):
                raise LockHeld(f"{self.database} is locked by {holding}; {self.lake.uri(self.key)}")
            elif self._replace(holding, until, datetime.now(UTC)):
                log.warning("Took the lock of %s over from %s, who is gone", self.database, holding)
                return
        raise LockHeld(
            f"the lock of {self.database} changed hands {_ROUNDS} times; {self.lake.uri(self.key)}"
        )

    def release(self, holding: Holding | None) -> bool:
        """Removes the lock, as it was read, if this run has it; says whether it did.

        One that was asked for again since stays: the run was cleared meanwhile, and goes on with it.
        """
        if holding is None:
            return False
        if holding.owner != self.owner:
            log.info("%s is locked by %s, which stays", self.database, holding)
            return False
        released = self.remove(holding)
        if released:
            log.info("Released the lock of %s", self.database)
        else:
            log.warning("The lock of %s, which %s had, was gone or another's already", self.database, holding)
        return released

    def remove(self, holding: Holding) -> bool:
        """Removes the lock as it was read; False when it was given back, taken over or asked for again since."""
        return self.lake.remove_version(self.key, holding.etag)

    def holding(self) -> Holding | None:
        """Who has the lock, or None.

        Raises:
            ConfigError: the object is not what this class writes.
        """
        found = self.lake.read_version(self.key)
        if found is None:
            return None
        try:
            note = json.loads(found[0])
            return Holding(
                owner=RunKey(**note["owner"]),
                region=note["region"],
                taken_at=datetime.fromisoformat(note["taken_at"]),
                deadline=datetime.fromisoformat(note["deadline"]),
                etag=found[1],
            )
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"{self.lake.uri(self.key)} is no lock of ours ({error}): see that nothing works on "
                f"{self.database}, then remove it"
            ) from error

    def is_abandoned(self, holding: Holding) -> bool:
        """Whether a holder may be robbed: past its deadline and gone."""
        return holding.deadline < datetime.now(UTC) and self.is_gone(holding)

    def _replace(self, holding: Holding, until: datetime, taken_at: datetime) -> bool:
        return self.lake.replace_version(self.key, self._note(until, taken_at), holding.etag)

    def _note(self, until: datetime, taken_at: datetime) -> bytes:
        note = {
            "owner": asdict(self.owner),
            "region": self.region,
            "taken_at": taken_at.isoformat(),
            "deadline": until.isoformat(),
            "asked_at": datetime.now(UTC).isoformat(),  # makes each version another, and so its ETag
        }
        return json.dumps(note, indent=1).encode()


def take_together(locks: Iterable[DatabaseLock], until: datetime) -> None:
    """Takes or prolongs every lock, by the name of its database; or holds none of them.

    Args:
        locks: of one run, which has no cluster at work.
        until: the deadline, with a time zone.

    Raises:
        LockHeld: another run has one of them, and it is not abandoned.
    """
    ordered = sorted(locks, key=lambda lock: lock.database)
    for number, lock in enumerate(ordered):
        try:
            lock.take(until)
        except Exception:
            for held in ordered[:number]:
                held.release(held.holding())
            raise
