"""The time that clusters go by."""

import threading
from datetime import UTC, datetime


class Clock:
    """The clock of this machine. A test passes a clock that it moves itself, and does not wait."""

    def now(self) -> datetime:
        """Return the present moment in UTC."""
        return datetime.now(UTC)

    def wait(self, changed: threading.Condition, until: datetime | None) -> None:
        """Wait until `changed` is notified, at most until a moment."""
        seconds = threading.TIMEOUT_MAX if until is None else (until - self.now()).total_seconds()
        changed.wait(max(0.0, min(seconds, threading.TIMEOUT_MAX)))
