"""`python -m tests.emulator`: the AWS emulator with faults that a test arms, and with each reply checked.

A fault is a JSON object posted to `/_local_aws/faults`; `tests.emulator.armed.Fault` documents its members.
"""
