"""The laptop's AWS: S3, EMR, IAM, STS, Glue, KMS, EC2 and CloudFormation on one loopback port.

moto's application answers; its EMR is replaced (`local_aws.emr`) by one whose clusters live through the states
of a real cluster and whose steps really run, and the few places where moto is kinder than AWS are made strict
(`local_aws.s3`, `local_aws.glue`, `local_aws.cloudformation`). Others reach it over HTTP only; nothing imports it.

What survives a restart: nothing. All state is in memory; bytes of large S3 objects and Spark's scratch space
spill under the state directory and are removed at the end. The access log and the plain logs of the last run's
steps stay there for a reader until the next start.
"""
