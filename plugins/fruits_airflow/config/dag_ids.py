"""Ids of the DAGs that other modules look for in Airflow, in cluster names and in the lake."""

PIPELINE = "fruits_pipeline"
ERASURE_DAG = "erase_images"
