"""Predicates on values of settings: folders, schedules, time zones, secrets."""

import re
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

# A folder reaches jobs as an argument: no way up, no empty or hidden part, nothing that a shell or a glob would read.
FOLDER_PATTERN = r"^(?![./])(?!.*(/\.|//))[^\x00-\x1f\x7f$`;|&<>\"'*?{}\[\]\\^#!~%\ud800-\udfff]+/$(?!\n)"
SHA256_PATTERN = r"^[0-9a-f]{64}$(?!\n)"
FOLDER_RULE = "a folder: a slash last, none first, no empty part, none that begins with a dot, nothing a shell reads"

_FOLDER = re.compile(FOLDER_PATTERN)
_SECRET_KEY = re.compile(r"secret|password|token|access_key|credential", re.IGNORECASE)
# Access keys of AWS, private keys, Slack tokens, addresses with a password.
_SECRET = re.compile(r"\b(AKIA|ASIA)[A-Z0-9]{16}\b|-----BEGIN|\bxox[abp]-|://[^/\s:]+:[^/\s@]+@")
_CRON_FIELDS = 5


def is_folder(text: str) -> bool:
    """Tell whether `text` may be a prefix of photos."""
    return _FOLDER.fullmatch(text) is not None


def is_secret(key: str, value: object) -> bool:
    """Tell whether a setting holds a secret, by its name or by the form of its value."""
    return bool(_SECRET_KEY.search(key) or (isinstance(value, str) and _SECRET.search(value)))


def is_cron(text: str) -> bool:
    """Tell whether `text` is a cron expression of five fields."""
    from croniter import croniter  # type: ignore[import-untyped]

    return len(text.split()) == _CRON_FIELDS and bool(croniter.is_valid(text))


def is_timezone(text: str) -> bool:
    """Tell whether `text` is a name of the tz database."""
    try:
        ZoneInfo(text)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return True
