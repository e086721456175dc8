"""An AWS emulator: S3, EMR, IAM, STS, Glue, KMS, EC2 and CloudFormation on one loopback port.

moto's application answers. `local_aws.emr` replaces its EMR: clusters go through the states of a real cluster, and
steps run. The other packages are as strict as AWS where moto is not. Clients reach the emulator over HTTP only; the
rest of the repository never imports it.

Nothing survives a restart: all state is in memory. Large S3 objects and Spark's scratch space spill to the state
directory and are removed at the end. The access log and the logs of the last steps stay until the next start.
"""
