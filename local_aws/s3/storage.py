"""Makes moto's store of S3 objects safe for threads, and evaluates bucket policies.

In moto, an iteration over a bucket looks each key up again and fails after a deletion; it closes the bytes of a
replaced object at once, so that a reader of them fails; it keeps a reference to every object for a dashboard; and it
ignores the conditions of a policy, so that `Deny` unless TLS denies everything. Denials with a condition are left out
here, since the request is unknown where the policy is evaluated.
"""

import json
from collections.abc import Iterator
from typing import Any

from moto.iam.access_control import IAMPolicy, PermissionResult
from moto.s3 import models, utils


class _Untracked(list[Any]):
    """The list to which moto appends every instance; keeps none."""

    def append(self, _instance: Any) -> None:
        """Forget the instance."""


def _lists(store: dict[str, list[Any]]) -> Iterator[tuple[str, list[Any]]]:
    """Yield each key with its versions, as of one moment (copying a dict is atomic)."""
    yield from dict(store).items()


def _items(store: dict[str, list[Any]]) -> Iterator[tuple[str, Any]]:
    return ((key, versions[-1]) for key, versions in _lists(store))


def _values(store: dict[str, list[Any]]) -> Iterator[Any]:
    return (versions[-1] for _, versions in _lists(store))


def _dispose(_key: Any, garbage: bool = False) -> None:
    """Leave closing to the garbage collector: another thread may be reading."""


def _get_permission(bucket: Any, action: str, resource: str) -> PermissionResult:
    """Evaluate the bucket's policy without denials that have a condition; the loopback interface replaces TLS."""
    if bucket.policy is None:
        return PermissionResult.NEUTRAL
    policy = json.loads(bucket.policy)
    statements = policy["Statement"] if isinstance(policy["Statement"], list) else [policy["Statement"]]
    policy["Statement"] = [
        statement for statement in statements if not (statement["Effect"] == "Deny" and statement.get("Condition"))
    ]
    return IAMPolicy(json.dumps(policy)).is_action_permitted(action, resource)


def install() -> None:
    """Replace these parts of moto in this process."""
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
