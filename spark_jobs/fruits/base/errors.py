"""The errors by which a job says what is wrong, with the exit status that each one ends the job with."""

from __future__ import annotations


class FruitsError(Exception):
    """Base of all errors of the jobs: the message says what, which value, and what to do."""

    exit_status = 1


class InputError(FruitsError):
    """An argument or an input of the job is wrong: a second try with the same input fails again."""

    exit_status = 2


class ListingError(InputError):
    """The run's ``listing.parquet`` is missing or not what ``plan`` writes."""


class ObjectAccessError(FruitsError):
    """An object could not be read or written for a reason that says nothing about the object itself."""


class TableError(InputError):
    """A table has columns that the jobs cannot write, or belongs to another place."""


class ModelMismatchError(InputError):
    """The model artifact is not the one that was asked for, or not one that this engine can run."""


class WeightsError(InputError):
    """A weights file does not fit MobileNetV2 without its top."""


class JavaError(FruitsError):
    """Spark, Iceberg or a client of AWS failed inside Java: the message has the innermost cause."""


class FeaturesOutOfRangeError(FruitsError):
    """A feature is NaN, infinite or beyond the range in which the PCA sums are exact."""


class TooFewImagesError(FruitsError):
    """A PCA needs at least two images."""


class ConstantFeaturesError(FruitsError):
    """All images have the same features: there is no variance to explain."""


class ReconciliationError(FruitsError):
    """After a load or an erasure, the tables do not hold what they must."""


class QualityGateError(FruitsError):
    """The quality gate failed: nothing was published, the last published PCA stays current."""

    exit_status = 3
