"""What can go wrong on the Airflow side, each with a message that says what, which value, and what to do."""

from __future__ import annotations


class FruitsError(Exception):
    """Base of every error that this package raises on purpose."""


class ConfigError(FruitsError):
    """A setting, a parameter of a run or a file below include/ is wrong."""


class ClusterRefused(ConfigError):
    """A body of RunJobFlow breaks a rule of fruits_airflow/emr/cluster_lint.py."""


class ResidencyError(ConfigError):
    """Data would leave the European Union."""


class CostCeilingExceeded(FruitsError):
    """The run would cost, or has cost, more than max_cost_eur."""


class RunRefused(FruitsError):
    """The plan stops the run before anything is created; the run is red."""


class ListingIncomplete(FruitsError):
    """S3 answered with a part of a listing: photos that are missing in it need not be gone."""


class NothingToDo(FruitsError):
    """The plan stops the run because its result is already published; the run is green."""


class CodeMismatch(FruitsError):
    """An object below code/ is not what its digest says."""


class ClusterLost(FruitsError):
    """The cluster ended before its work did; another attempt may make a new one."""


class ClustersUnseen(FruitsError):
    """A region or a cluster could not be looked at: whether it outlives its run is not known; another look may tell."""


class LockHeld(FruitsError):
    """Another run works on the database; this one waits, or is refused."""


class RunOvertaken(FruitsError):
    """Another run has worked on the database since this one was planned: going on would bring its results back."""


class ErasureRefused(FruitsError):
    """An erasure is not what was confirmed, or is larger than the settings allow; nothing is erased or suppressed."""


class ErasureIncomplete(FruitsError):
    """Something of a photo that was to be erased is still there."""
