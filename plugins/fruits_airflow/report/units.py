"""Numbers as a person reads them, with their unit; what is no finite number reads `not known`."""

import math
import unicodedata

from markupsafe import Markup

UNKNOWN = "not known"
NBSP = "\u00a0"  # keeps a number and its unit on one line
WEIGHTS = {"path": "from a file", "imagenet": "ImageNet, from Keras", "random": "random"}

# Cc and Cf: control and formatting characters (a right-to-left override turns `gpj.exe` around); Cs: half of a
# surrogate pair, which no file can be written with; Zl and Zp: line breaks that no editor shows.
HIDDEN_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def number(value: object) -> float | None:
    """Return `value` when it is a finite number, else None; a truth value is no number here."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:  # an integer beyond what a float holds
        return None


def count(value: object) -> str:
    """Format a count: 67692 → `67,692`."""
    amount = number(value)
    return UNKNOWN if amount is None else f"{amount:,.0f}"


def size(value: object) -> str:
    """Format a number of bytes in units of 1000: 1536 → `1.5 kB`."""
    amount = number(value)
    if amount is None:
        return UNKNOWN
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(amount) < 999.5 or unit == "TB":
            break
        amount /= 1000
    digits = 0 if unit == "B" or abs(amount) >= 99.95 else 1
    return f"{amount:,.{digits}f}{NBSP}{unit}"


def seconds(value: object) -> str:
    """Format a duration: 4.21 → `4.2 s`, 192 → `3 min 12 s`, 3840 → `1 h 04 min`."""
    amount = number(value)
    if amount is None:
        return UNKNOWN
    if amount < 9.95:
        return f"{amount:.1f}{NBSP}s"
    whole = round(amount)
    if whole < 120:
        return f"{whole}{NBSP}s"
    if whole < 3600:
        return f"{whole // 60}{NBSP}min{NBSP}{whole % 60:02d}{NBSP}s"
    minutes = round(amount / 60)
    return f"{minutes // 60:,}{NBSP}h{NBSP}{minutes % 60:02d}{NBSP}min"


def euros(value: object) -> str:
    """Format a sum: 0.4179 → `€0.42`; below ten cents with four decimals, since a demo costs less than that."""
    amount = number(value)
    if amount is None:
        return UNKNOWN
    return f"€{amount:,.2f}" if amount == 0 or abs(amount) >= 0.1 else f"€{amount:.4f}"


def percent(share: object) -> str:
    """Format a share: 0.9512 → `95.1 %`. Never rounds up to 100: 0.9999 is `99.9 %`."""
    amount = number(share)
    if amount is None:
        return UNKNOWN
    shown = math.floor(amount * 1000 + 1e-9) / 10 if 0.9995 <= amount < 1 else amount * 100
    return f"{shown:.1f}{NBSP}%"


def change(before: object, after: object) -> str:
    """Format the change of a volume: (100, 10) → `10.0 times smaller`."""
    first, second = number(before), number(after)
    if not first or not second or first < 0 or second < 0:
        return UNKNOWN
    times, word = (first / second, "smaller") if second <= first else (second / first, "larger")
    if times < 1.005:
        return "the same"
    return f"{times:,.{0 if times >= 99.5 else 1 if times >= 9.95 else 2}f} times {word}"


def value(anything: object) -> str:
    """Format a value or limit of a check, whatever its type: 0.95 → `0.95`, True → `yes`."""
    if anything is None:
        return UNKNOWN
    if isinstance(anything, bool):
        return "yes" if anything else "no"
    amount = number(anything)
    if amount is not None:
        return f"{amount:,.0f}" if amount == int(amount) else f"{amount:,.4g}"
    return UNKNOWN if isinstance(anything, int | float) else str(anything)


def weights(origin: object) -> str | None:
    """Format the origin of the model's weights, a word in run.json: `path` → `from a file`."""
    return WEIGHTS.get(origin, origin) if isinstance(origin, str) else None


def visible(text: str) -> str:
    r"""Write out every character that cannot be seen: a right-to-left override as `\u202e`."""
    return "".join(
        f"\\u{ord(c):04x}" if unicodedata.category(c) in HIDDEN_CATEGORIES and c not in "\n\t" else c for c in text
    )


def cell(text: str | None) -> Markup:
    """Format a text for a line of Markdown, where nothing in it is markup."""
    written = (f"&#{ord(c)};" if c in "|[]*`<>&\\\n" else c for c in visible(text or UNKNOWN))
    return Markup("".join(written))  # noqa: S704 - no character of markup is left


def clipped(text: str, limit: int) -> str:
    """Return the first `limit` characters of a text, and how many more there are, where that is shorter."""
    more = f"… ({len(text) - limit:,} more characters)"
    return text if len(text) <= limit + len(more) else f"{text[:limit]}{more}"
