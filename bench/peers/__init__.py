"""What others run for the same features: one module per peer, each `python -m bench.peers.NAME`.

Every peer takes the same arguments (`contract.py`), the same preprocessing (`pixels.py`) and the same two engines
(`engines.py`), reads the photos from the same folder and writes its features as Parquet. None knows the others.
"""
