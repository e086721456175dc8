"""Errors of the Airflow side; each message says what is wrong, which value, and the remedy."""


class FruitsError(Exception):
    """Base of the errors that this package raises."""


class ConfigError(FruitsError):
    """A setting, a parameter of a run or a file below include/ is wrong."""


class ClusterRefused(ConfigError):
    """A RunJobFlow request breaks a rule of fruits_airflow/emr/cluster_lint.py."""


class ResidencyError(ConfigError):
    """Data would leave the European Union."""


class CostCeilingExceeded(FruitsError):
    """The run would cost, or has cost, more than max_cost_eur."""


class RunRefused(FruitsError):
    """The plan stops the run before anything is created; the run is red."""


class ListingIncomplete(FruitsError):
    """S3 returned an incomplete listing: photos that it lacks may still exist."""


class NothingToDo(FruitsError):
    """The plan stops the run: its result is published, or it waits for more photos; the run is green."""


class CodeMismatch(FruitsError):
    """An object below code/ does not have the digest in its key."""


class Retryable(FruitsError):
    """Another attempt of the task may succeed."""


class StepLost(Retryable):
    """A step failed for a transient cause; another attempt may add it again."""


class ClusterLost(Retryable):
    """The cluster ended before its work; another attempt may create a new cluster."""


class ClustersUnseen(FruitsError):
    """A region or a cluster could not be read: whether a cluster outlives its run is unknown until another attempt."""


class LockHeld(FruitsError):
    """Another run holds the database; this run waits or is refused."""


class RunOvertaken(FruitsError):
    """Another run has changed the database since this run was planned; continuing would undo its changes."""


class ErasureRefused(FruitsError):
    """An erasure differs from what was confirmed or exceeds the settings; nothing is erased or suppressed."""


class ErasureIncomplete(FruitsError):
    """Data of a photo that was to be erased still exists."""
