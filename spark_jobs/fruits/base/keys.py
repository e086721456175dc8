"""Facts derived from an object's key: image id, label, rotation sequence, and whether it is a photo at all."""

import hashlib
import re

_LEFTOVER = re.compile(
    r"(?:^|/)(?:(?:\.(?!\.?/)[^/]+|__MACOSX|@eaDir|[@#]Recycle|\$RECYCLE\.BIN|System Volume Information|lost\+found)/"
    r"|(?:\.(?:_[^/]*|DS_Store|directory|gitkeep|localized|nomedia|(?:trashed|pending)-[^/]*)"
    r"|(?:eh)?Thumbs\.db|desktop\.ini|Icon\r)$)",
    re.IGNORECASE,
)
"""Hidden folders, and files that macOS, Windows, Android and NAS systems keep beside photos."""
_SEQUENCE = re.compile(r"^(r\d*)_")


def image_id(key: str) -> str:
    """Derive an image's id from its key, so that a changed object replaces its own rows.

    Returns:
        64 lower-case hexadecimal digits: SHA-256 of the key's UTF-8 bytes.
    """
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def label(key: str, prefix: str) -> str | None:
    """Derive the label from a key: the name of the last folder under the input prefix.

    Args:
        key: Full object key, for example ``raw/Training/Apple Golden 1/r0_10_100.jpg``.
        prefix: The input prefix, for example ``raw/``; ``""`` for a whole bucket or a plain folder.

    Returns:
        The label; None for a photo directly under the prefix.
    """
    below = key.removeprefix(prefix).lstrip("/") if prefix else key
    folders = [part for part in below.split("/")[:-1] if part]
    return folders[-1] if folders else None


def sequence(key: str) -> str:
    """Derive a photo's rotation sequence from its file name, as Fruits-360 names files.

    Photos of one rotation are nearly equal, so a nearest neighbour from the same sequence says nothing about the
    features.

    Returns:
        ``r``, ``r0``, ``r2``...; ``""`` when the name has no sequence.
    """
    match = _SEQUENCE.match(key.rsplit("/", 1)[-1])
    return match.group(1) if match else ""


def is_leftover(key: str) -> bool:
    """Return whether a file manager created the file, so that it is neither a photo nor a reject.

    ``fruits_airflow.storage.listing`` has the same definition for buckets; a test compares the two.

    Examples:
        >>> [is_leftover(key) for key in ("Kiwi/._1.jpg", "__MACOSX/Kiwi/1.jpg", "Kiwi/Thumbs.db", "Kiwi/.hidden.jpg")]
        [True, True, True, False]
    """
    return _LEFTOVER.search(key) is not None
