"""The run report, one self-contained page that says what a run did, and the cards of what it published."""

from fruits_airflow.report.cards import render_cards
from fruits_airflow.report.page import render

__all__ = ["render", "render_cards"]
