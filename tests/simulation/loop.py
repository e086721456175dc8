"""The loop of a simulation: actors that take turns in one thread, under a clock that jumps to the next event.

An actor is a greenlet, so that the code under test waits as it always does: `time.sleep`, a reply, a condition. The
clock stands still while an actor works. Actors go on in the order of their moments, which the seed draws.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from typing import Any

from greenlet import GreenletExit, getcurrent, greenlet


class Killed(GreenletExit):
    """The actor's process has been killed; no handler of the code under test may run on."""


class Actor:
    """Something that works at the same time as others.

    Attributes:
        name: What it is, for the list of events.
        process: State that the code under test keeps per process.
        calls: Number of requests it has sent.
        kill_at: The request, and whether `before` or `after` it, at which it is killed; None for never.
    """

    def __init__(self, loop: Loop, name: str, work: Callable[[], None]) -> None:
        self.name = name
        self.process: dict[str, Any] = {}
        self.calls = 0
        self.kill_at: tuple[int, str] | None = None
        self.is_killed = False
        self.has_ended = False
        self.ticket = 0
        self.greenlet = greenlet(lambda: self._run(work), parent=loop.hub)

    def _run(self, work: Callable[[], None]) -> None:
        try:
            if not self.is_killed:
                work()
        except Killed:
            pass
        finally:
            self.has_ended = True


class Loop:
    """The queue of moments at which actors go on.

    Args:
        start: The first moment, seconds since the epoch.
    """

    def __init__(self, start: float) -> None:
        self.now = start
        self.hub = getcurrent()
        self._queue: list[tuple[float, int, Actor, int]] = []
        self._order = itertools.count()
        self._actors: dict[greenlet, Actor] = {}

    @property
    def current(self) -> Actor | None:
        """The actor whose turn it is; None outside of the loop."""
        return self._actors.get(getcurrent())

    def spawn(self, name: str, work: Callable[[], None], delay: float = 0.0) -> Actor:
        """Begin an actor after a delay."""
        actor = Actor(self, name, work)
        self._actors[actor.greenlet] = actor
        self.wake(actor, delay)
        return actor

    def wake(self, actor: Actor, delay: float = 0.0) -> None:
        """Let an actor go on after a delay, unless it goes on before."""
        heapq.heappush(self._queue, (self.now + max(0.0, delay), next(self._order), actor, actor.ticket))

    def kill(self, actor: Actor) -> None:
        """Kill an actor between two of its calls."""
        if not actor.has_ended:
            actor.is_killed = True
            self.wake(actor)

    def sleep(self, seconds: float) -> None:
        """Wait, as the present actor."""
        self.wait(seconds)

    def wait(self, seconds: float | None) -> None:
        """Wait until somebody wakes the present actor, at most for some seconds.

        Raises:
            Killed: The actor has been killed.
        """
        actor = self.current
        if actor is None:
            return  # set-up and checks take no time
        self.require_alive(actor)
        if seconds is not None:
            self.wake(actor, seconds)
        self.hub.switch()
        self.require_alive(actor)

    def require_alive(self, actor: Actor) -> None:
        """Stop the present actor where it has been killed."""
        if actor.is_killed:
            raise Killed(actor.name)

    def run_until(self, moment: float) -> None:
        """Give turns until a moment."""
        while self._queue and self._queue[0][0] <= moment:
            at, _, actor, ticket = heapq.heappop(self._queue)
            if actor.has_ended or ticket != actor.ticket:
                continue
            self.now = max(self.now, at)
            actor.ticket += 1
            actor.greenlet.switch()
            if actor.has_ended:
                self._actors.pop(actor.greenlet, None)
        self.now = max(self.now, moment)

    def close(self) -> None:
        """Kill every actor."""
        for actor in list(self._actors.values()):
            actor.is_killed = True
            if not actor.has_ended:
                actor.greenlet.switch()
        self._actors.clear()
        self._queue.clear()


class Waiters:
    """The actors that wait for something."""

    def __init__(self, loop: Callable[[], Loop]) -> None:
        self._loop = loop
        self._waiting: list[Actor] = []

    def wait(self, seconds: float | None = None) -> None:
        """Wait until `wake_all`, at most for some seconds."""
        loop = self._loop()
        actor = loop.current
        if actor is not None:
            self._waiting.append(actor)
            try:
                loop.wait(seconds)
            finally:
                if actor in self._waiting:
                    self._waiting.remove(actor)

    def wake_all(self) -> None:
        """Let all go on."""
        waiting, self._waiting = self._waiting, []
        for actor in waiting:
            self._loop().wake(actor)
