"""An EMR whose clusters go through the states of a real cluster and whose steps run as processes of this machine.

moto looks for the backend class in `models.py` and for its routes in `urls.py`. `validation.py` checks requests before
anything is registered. `cluster.py` is the life of a cluster, `steps.py` a step as data, `execution/` what runs it.
"""
