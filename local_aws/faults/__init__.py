"""Faults that a test arms over HTTP in a server started with `--faults`.

A fault is a JSON object posted to `/_local_aws/faults`; `local_aws.faults.armed.Fault` documents its members.
"""
