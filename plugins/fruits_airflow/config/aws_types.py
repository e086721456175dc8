"""The types of boto3's clients, for the type checker: their stubs are not installed where Airflow runs."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mypy_boto3_emr import EMRClient as EMRClient
    from mypy_boto3_s3 import S3Client as S3Client
else:
    EMRClient = S3Client = Any
