"""Makes moto's store of S3 objects safe for many threads, and reads its bucket policies as they are meant here.

What moto does: an iteration over a bucket looks each key up again, so that a deletion meanwhile is an error; a
replaced object's bytes are closed at once, so that a reader of it fails; every object ever made stays referenced
for a dashboard; and a policy statement's conditions are not looked at, so that `Deny` unless TLS denies all. Denials
under a condition are left out here: what a request carries is not known where the policy is asked.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from moto.iam.access_control import IAMPolicy, PermissionResult
from moto.s3 import models, utils


class _Untracked(list[Any]):
    """What moto appends every instance to; keeps none."""

    def append(self, _instance: Any) -> None:
        """Forgets it."""


def _items(store: dict[str, list[Any]]) -> Iterator[tuple[str, Any]]:
    """Each key with its latest version, of one moment (copying a dict is atomic)."""
    for key, versions in dict(store).items():
        yield key, versions[-1]


def _values(store: dict[str, list[Any]]) -> Iterator[Any]:
    for versions in dict(store).values():
        yield versions[-1]


def _lists(store: dict[str, list[Any]]) -> Iterator[tuple[str, list[Any]]]:
    yield from dict(store).items()


def _dispose(_key: Any, garbage: bool = False) -> None:
    """Leaves closing to the garbage collector: somebody may be reading."""


def _get_permission(bucket: Any, action: str, resource: str) -> PermissionResult:
    """What the bucket's policy says, but for denials under a condition (the loopback interface stands for TLS)."""
    if bucket.policy is None:
        return PermissionResult.NEUTRAL
    policy = json.loads(bucket.policy)
    statements = policy["Statement"] if isinstance(policy["Statement"], list) else [policy["Statement"]]
    policy["Statement"] = [one for one in statements if not _denies_sometimes(one)]
    return IAMPolicy(json.dumps(policy)).is_action_permitted(action, resource)


def _denies_sometimes(statement: dict[str, Any]) -> bool:
    return statement["Effect"] == "Deny" and bool(statement.get("Condition"))


def install() -> None:
    """Replaces these parts of moto, for this process."""
    store: Any = utils._VersionedKeyStore
    store.items = store.iteritems = store._iteritems = _items
    store.values = store.itervalues = store._itervalues = _values
    store.lists = store.iterlists = store._iterlists = _lists
    for name in ("FakeKey", "FakeMultipart"):
        model: Any = getattr(models, name)
        model.instances_tracked = _Untracked()
        model.dispose = _dispose
    bucket: Any = models.FakeBucket
    bucket.get_permission = _get_permission
