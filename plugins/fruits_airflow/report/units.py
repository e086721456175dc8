"""Numbers as a person reads them, with their unit; what is no finite number reads `not known`."""

from __future__ import annotations

import math
import unicodedata

UNKNOWN = "not known"
NBSP = "\u00a0"  # keeps a number and its unit on one line
WEIGHTS = {"path": "from a file", "imagenet": "ImageNet, from Keras", "random": "random"}

# Cc and Cf: control and formatting characters (a right-to-left override turns `gpj.exe` around); Cs: half of a
# surrogate pair, which no file can be written with; Zl and Zp: line breaks that no editor shows.
HIDDEN_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def number(value: object) -> float | None:
    """`value` when it is a finite number, else None; a truth value is no number here."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:  # an integer beyond what a float holds
        return None


def count(value: object) -> str:
    """67692 → `67,692`."""
    known = number(value)
    return UNKNOWN if known is None else f"{known:,.0f}"


def size(value: object) -> str:
    """A number of bytes in units of 1000: 1536 → `1.5 kB`."""
    known = number(value)
    if known is None:
        return UNKNOWN
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(known) < 999.5 or unit == "TB":
            break
        known /= 1000
    digits = 0 if unit == "B" or abs(known) >= 99.95 else 1
    return f"{known:,.{digits}f}{NBSP}{unit}"


def seconds(value: object) -> str:
    """4.21 → `4.2 s`, 192 → `3 min 12 s`, 3840 → `1 h 04 min`."""
    known = number(value)
    if known is None:
        return UNKNOWN
    if known < 9.95:
        return f"{known:.1f}{NBSP}s"
    whole = round(known)
    if whole < 120:
        return f"{whole}{NBSP}s"
    if whole < 3600:
        return f"{whole // 60}{NBSP}min{NBSP}{whole % 60:02d}{NBSP}s"
    minutes = round(known / 60)
    return f"{minutes // 60:,}{NBSP}h{NBSP}{minutes % 60:02d}{NBSP}min"


def euros(value: object) -> str:
    """0.4179 → `€0.42`; below ten cents with four decimals, since a demo costs less than that."""
    known = number(value)
    if known is None:
        return UNKNOWN
    return f"€{known:,.2f}" if known == 0 or abs(known) >= 0.1 else f"€{known:.4f}"


def percent(share: object) -> str:
    """0.9512 → `95.1 %`. Never rounds up to 100: 0.9999 is `99.9 %`."""
    known = number(share)
    if known is None:
        return UNKNOWN
    shown = math.floor(known * 1000 + 1e-9) / 10 if 0.9995 <= known < 1 else known * 100
    return f"{shown:.1f}{NBSP}%"


def change(before: object, after: object) -> str:
    """How a volume changed: (100, 10) → `10.0 times smaller`."""
    first, second = number(before), number(after)
    if not first or not second or first < 0 or second < 0:
        return UNKNOWN
    times, word = (first / second, "smaller") if second <= first else (second / first, "larger")
    if times < 1.005:
        return "the same"
    return f"{times:,.{0 if times >= 99.5 else 1 if times >= 9.95 else 2}f} times {word}"


def value(anything: object) -> str:
    """A value or limit of a check, whatever its type: 0.95 → `0.95`, True → `yes`."""
    if anything is None:
        return UNKNOWN
    if isinstance(anything, bool):
        return "yes" if anything else "no"
    known = number(anything)
    if known is not None:
        return f"{known:,.0f}" if known == int(known) else f"{known:,.4g}"
    return UNKNOWN if isinstance(anything, int | float) else str(anything)


def weights(origin: object) -> str | None:
    """Where the model's weights came from, which run.json says in one word: `path` → `from a file`."""
    return WEIGHTS.get(origin, origin) if isinstance(origin, str) else None


def visible(text: str) -> str:
    r"""`text` with every character that cannot be seen written out: a right-to-left override as `\u202e`."""
    return "".join(
        f"\\u{ord(c):04x}" if unicodedata.category(c) in HIDDEN_CATEGORIES and c not in "\n\t" else c
        for c in text
    )


def clipped(text: str, limit: int) -> str:
    """The first `limit` characters of `text`, and how many more there are."""
    return text if len(text) <= limit else f"{text[:limit]}… ({len(text) - limit:,} more characters)"
