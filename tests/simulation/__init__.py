"""`python -m tests.simulation`: nights of the control plane against the AWS emulator, by seed, in one process.

Everything runs in one thread under a clock of its own. Each task attempt, trigger, cluster, step and request is an
actor; the seed decides the order in which they go on, what breaks and who is killed.
"""
