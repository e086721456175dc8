"""The run report: one self-contained page that says what a run did."""

from fruits_airflow.report.page import render

__all__ = ["render"]
