"""The clocks and threads that the code under test reads, replaced by those of a loop.

`install` replaces them once in a process; `set_loop` names the loop of the present history.
"""

from __future__ import annotations

import datetime
import random
import sys
import time
import uuid
from collections.abc import Callable
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

from tests.simulation.loop import Actor, Loop, Waiters

_REAL = datetime.datetime
_PACKAGES = (
    "fruits_airflow",
    "local_aws",
    "moto",
    "botocore",
    "boto3",
    "s3transfer",
    "tests.emulator",
    "tests.simulation.guards",
)
_current: list[Loop] = []
draws = random.Random()
"""Draws what the code under test draws: ids, pauses of retries."""


def loop() -> Loop:
    """Return the loop of the present history."""
    return _current[-1]


def set_loop(new: Loop, seed: int) -> None:
    """Make a loop the present one, and draw from a seed."""
    _current[:] = [new]
    draws.seed(f"draws {seed}")
    random.seed(f"random {seed}")


def of_process(name: str, default: Callable[[], Any]) -> Any:
    """Return what the present actor's process keeps under a name."""
    actor = loop().current
    return default() if actor is None else actor.process.setdefault(name, default())


class _DatetimeType(type):
    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, _REAL)

    def __subclasscheck__(cls, subclass: type) -> bool:
        return issubclass(subclass, _REAL)


class SimulatedDatetime(_REAL, metaclass=_DatetimeType):
    """`datetime.datetime` whose now is the loop's; its instances are real ones."""

    def __new__(cls, *arguments: Any, **named: Any) -> Any:
        return _REAL(*arguments, **named)

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: object, handler: Any) -> Any:
        return handler.generate_schema(_REAL)

    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> Any:
        """Return the loop's moment."""
        return _REAL.fromtimestamp(loop().now, tz)

    @classmethod
    def utcnow(cls) -> Any:
        """Return the loop's moment without a zone."""
        return _REAL.fromtimestamp(loop().now, datetime.UTC).replace(tzinfo=None)


class SimulatedThread:
    """`threading.Thread` as an actor."""

    def __init__(self, target: Callable[..., None], name: str = "thread", daemon: bool = True, args: Any = ()) -> None:
        self._target, self._name, self._args = target, name, args
        self._actor: Actor | None = None
        self._ended = Waiters(loop)

    def start(self) -> None:
        """Begin."""
        self._actor = loop().spawn(self._name, self._work)

    def _work(self) -> None:
        try:
            self._target(*self._args)
        finally:
            self._ended.wake_all()

    def join(self, timeout: float | None = None) -> None:
        """Wait for the end."""
        if self._actor is not None and not self._actor.has_ended:
            self._ended.wait(timeout)


class SimulatedTimer(SimulatedThread):
    """`threading.Timer` as an actor."""

    def __init__(self, interval: float, function: Callable[..., None], args: Any = ()) -> None:
        def work() -> None:
            loop().sleep(interval)
            function(*args)

        super().__init__(work, "timer")


class SimulatedCondition:
    """`threading.Condition`; actors change only where they wait, so that nobody else can hold it."""

    def __init__(self, lock: object = None) -> None:
        self.waiters = Waiters(loop)

    def __enter__(self) -> bool:
        return True

    def __exit__(self, *_: object) -> None:
        pass

    def notify_all(self) -> None:
        """Wake all who wait."""
        self.waiters.wake_all()


class SimulatedEvent:
    """`threading.Event`."""

    def __init__(self) -> None:
        self._is_set = False
        self._waiters = Waiters(loop)

    def is_set(self) -> bool:
        """Whether it is set."""
        return self._is_set

    def set(self) -> None:
        """Set it, and wake all who wait."""
        self._is_set = True
        self._waiters.wake_all()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is set."""
        if not self._is_set:
            self._waiters.wait(timeout)
        return self._is_set


class InlineExecutor:
    """`ThreadPoolExecutor` that does each call at once."""

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __enter__(self) -> InlineExecutor:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def submit(self, work: Callable[..., Any], *arguments: Any, **named: Any) -> Future[Any]:
        """Do a call."""
        future: Future[Any] = Future()
        try:
            future.set_result(work(*arguments, **named))
        except Exception as error:  # noqa: BLE001  raised again by `result`
            future.set_exception(error)
        return future

    def map(self, work: Callable[..., Any], *iterables: Any) -> Any:
        """Do a call for each item."""
        return map(work, *iterables)

    def shutdown(self, *_: object, **__: object) -> None:
        """Do nothing: no call is under way."""


def install() -> None:
    """Replace clocks, threads and generators of ids in the modules that are imported now."""
    time.time = time.monotonic = time.perf_counter = lambda: loop().now  # type: ignore[assignment]
    time.sleep = lambda seconds: loop().sleep(seconds)  # type: ignore[assignment]
    datetime.datetime = SimulatedDatetime  # type: ignore[misc]
    uuid.uuid4 = lambda: uuid.UUID(int=draws.getrandbits(128), version=4)  # type: ignore[assignment]
    for name, module in list(sys.modules.items()):
        if name.split(".")[0] in _PACKAGES or name.startswith(_PACKAGES):
            for attribute, value in list(vars(module).items()):
                if value is _REAL:
                    setattr(module, attribute, SimulatedDatetime)
                elif getattr(value, "__name__", "") == "ThreadPoolExecutor":
                    setattr(module, attribute, InlineExecutor)
    threads = SimpleNamespace(
        Thread=SimulatedThread,
        Timer=SimulatedTimer,
        Condition=SimulatedCondition,
        RLock=lambda: None,
        Lock=SimulatedCondition,
        Event=SimulatedEvent,
        TIMEOUT_MAX=1e9,
    )
    for name in ("local_aws.emr.cluster", "tests.emulator.clusters", "tests.emulator.armed", "tests.emulator.wire"):
        setattr(sys.modules[name], "threading", threads)  # noqa: B010
    secrets = SimpleNamespace(choice=draws.choice, token_hex=lambda size: f"{draws.getrandbits(8 * size):0{2 * size}x}")
    setattr(sys.modules["local_aws.emr.ids"], "secrets", secrets)  # noqa: B010
