"""Errors of the jobs, each with the exit status that it ends a job with."""


class FruitsError(Exception):
    """Base class of all errors of the jobs: the message states the problem, the value and the remedy."""

    exit_status = 1


class InputError(FruitsError):
    """An argument or an input of the job is wrong; a retry with the same input fails again."""

    exit_status = 2


class ListingError(InputError):
    """The run's ``listing.parquet`` is missing or does not have the columns that ``plan`` writes."""


class ObjectAccessError(FruitsError):
    """An object cannot be read or written; the cause lies outside the object."""


class TableError(InputError):
    """A table has columns that the jobs cannot write, or its metadata belongs to another location."""


class ModelMismatchError(InputError):
    """The model artifact is not the requested one, or the engine cannot run it."""


class WeightsError(InputError):
    """A weights file does not fit the network without its top."""


class JavaError(FruitsError):
    """Spark, Iceberg or an AWS client failed inside Java; the message states the innermost cause."""


class FeaturesOutOfRangeError(FruitsError):
    """A feature is NaN, infinite, or outside the range in which the PCA statistics are exact."""


class TooFewImagesError(FruitsError):
    """A PCA needs at least two images."""


class ConstantFeaturesError(FruitsError):
    """All images have the same features, so there is no variance to explain."""


class NoClassifierError(FruitsError):
    """The labelled photos do not suffice for a classifier; the message says why."""


class ReconciliationError(FruitsError):
    """After a load or an erasure, the tables do not hold the expected rows."""


class QualityGateError(FruitsError):
    """The quality gate failed; nothing was published and the current PCA model stays."""

    exit_status = 3
