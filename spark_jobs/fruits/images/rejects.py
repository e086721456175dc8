"""Rejected objects: the codes and the exception."""

from enum import StrEnum


class RejectCode(StrEnum):
    """Why an object is not an image: the values of ``rejects.error_code``."""

    EMPTY = "empty"
    TOO_MANY_BYTES = "too_many_bytes"
    NOT_AN_IMAGE = "not_an_image"
    FORMAT_NOT_ALLOWED = "format_not_allowed"
    TOO_MANY_PIXELS = "too_many_pixels"
    SIDE_TOO_LONG = "side_too_long"
    ANIMATED = "animated"
    TOO_MANY_SCANS = "too_many_scans"
    TRUNCATED = "truncated"
    CORRUPT = "corrupt"
    CHANGED = "changed_since_listing"
    GONE = "gone_since_listing"
    KEY_NOT_FETCHABLE = "key_not_fetchable"
    NOT_READABLE_NOW = "not_readable_now"


RETRIED_CODES = (RejectCode.CHANGED, RejectCode.GONE, RejectCode.NOT_READABLE_NOW)
"""Rejects that depend on the moment and not on the bytes or the key: an archived object that was restored, or a file
that is readable again, keeps its ETag. Each costs a GET in every run that has work, for as long as it is listed. A
reject whose ETag stayed is no work by itself: a run with nothing else to do is skipped."""


class ImageRejected(Exception):
    """A photo that cannot be loaded, with its code and a sentence for the person who investigates."""

    def __init__(self, code: RejectCode, detail: str) -> None:
        super().__init__(code, detail)
        self.code = code
        self.detail = detail
