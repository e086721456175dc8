"""An EMR that behaves: clusters live through their states and steps really run, as processes of this machine.

The package has moto's shape because moto looks for it: the backend class is in `models.py`, its routes beside it
in `urls.py`. Requests are checked in `validation.py` before anything is registered, `cluster.py` is the life of a
cluster, `steps.py` that of a step, `command.py` turns a step's arguments into a local command and `supervisor.py`
is the small process between `local_aws` and a step that leaves none of the step's processes behind.
"""
