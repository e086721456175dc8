"""Notices through one of Airflow's notifiers: in the log, by mail, in Slack, or to a webhook.

A notice that cannot be sent is logged: it does not decide how a run ends.
"""

from __future__ import annotations

import html
import logging
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import quote

from airflow.sdk import BaseNotifier, Context

from fruits_airflow.aws.links import airflow_address
from fruits_airflow.config.dag_ids import PIPELINE
from fruits_airflow.config.errors import LockHeld
from fruits_airflow.config.settings import Settings
from fruits_airflow.emr.clusters import RunKey

log = logging.getLogger(__name__)

Anchor = Literal[
    "red-run", "refused", "gate-failed", "lock-held", "cluster-will-not-die", "clusters-unseen", "no-publication"
]
HEADLINES: dict[Anchor, str] = {
    "red-run": "a run is red",
    "refused": "a run was refused before anything was created",
    "gate-failed": "the quality gate refused; yesterday's components stay published",
    "lock-held": "a run gave up waiting for another writer",
    "cluster-will-not-die": "a cluster does not end, and costs",
    "clusters-unseen": "the janitor cannot see whether a cluster has outlived its run",
    "no-publication": "the night is not published",
}
NO_RUN = "(none)"
_TIMEOUT_S = 10


@dataclass(frozen=True)
class Notice:
    """A notice about a run."""

    anchor: Anchor  # the section of docs/runbook.md that says what to do
    run: RunKey
    cause: str
    cost_eur: float | None  # what the run has cost so far; None when that is not known
    task: str | None = None  # the task whose log says more

    @classmethod
    def of_refusal(cls, run: RunKey, reason: str) -> Notice:
        """Build the notice of a run that its plan refused, so that it has cost nothing."""
        return cls("lock-held" if reason.startswith(LockHeld.__name__) else "refused", run, reason, 0.0, "plan")

    @property
    def subject(self) -> str:
        """The notice in one line."""
        return f"Fruits! {self.run.deployment_id}: {HEADLINES[self.anchor]}"

    @property
    def links(self) -> dict[str, str]:
        """The addresses of the run, the task's log, the run's page and sections of the runbook, by name."""
        base, run_id = airflow_address(), self.run.run_id
        book = f"{base}/fruits-runs/runbook" if base else "docs/runbook.md"
        runbook = {"what to do": f"{book}#{self.anchor}"}
        if self.task:
            runbook["about the task"] = f"{book}#{self.task.replace('.', '-')}"
        if not base or run_id == NO_RUN:
            return runbook
        run = f"{base}/dags/{self.run.dag_id}/runs/{quote(run_id, safe='')}"
        log = {"log": f"{run}/tasks/{self.task}"} if self.task else {}
        page = {"page": f"{base}/fruits-runs/runs/{quote(run_id)}"} if self.run.dag_id == PIPELINE else {}
        return {"run": run} | log | page | runbook

    @property
    def text(self) -> str:
        """The whole notice, as plain text."""
        cost = "unknown" if self.cost_eur is None else f"{self.cost_eur:.2f} EUR"
        return "\n".join(
            (
                self.subject,
                f"run id: {self.run.dag_id} {self.run.run_id}",
                f"cause: {' '.join(self.cause.split())}",  # a line of its own would pass for ours
                f"cost so far: {cost}",
                *(f"{name}: {address}" for name, address in self.links.items()),
            )
        )


class LogNotifier(BaseNotifier):
    """Writes a notice to the task's log."""

    def __init__(self, notice: Notice) -> None:
        super().__init__()
        self.notice = notice

    def notify(self, context: Context) -> None:  # noqa: ARG002 - Airflow's signature
        """Log the notice."""
        for line in self.notice.text.splitlines():
            log.error("NOTICE %s", line)


def is_last_attempt(context: Context) -> bool:
    """Tell whether Airflow will not retry the task by itself."""
    ti: Any = context["ti"]
    return bool(ti.try_number > ti.max_tries)


def notify(settings: Settings, notice: Notice) -> None:
    """Send a notice through the channel of the settings."""
    try:
        # A call of the notifier would render the cause, which may quote the output of a step, as a Jinja template.
        notifier_for(settings, notice).notify({})
    except Exception:
        log.exception("A notice was not sent by %s; it says:\n%s", settings.notify, notice.text)


def notifier_for(settings: Settings, notice: Notice) -> BaseNotifier:
    """Return the notifier that the setting `notify` names, with its connection."""
    connection: Any = settings.notify_conn_id
    if settings.notify == "mail":
        from airflow.providers.smtp.notifications.smtp import SmtpNotifier

        return SmtpNotifier(
            to=str(settings.notify_to),
            subject=notice.subject,
            html_content=f"<pre>{html.escape(notice.text)}</pre>",
            smtp_conn_id=connection,
        )
    if settings.notify == "slack":
        from airflow.providers.slack.notifications.slack_webhook import SlackWebhookNotifier

        text = html.escape(notice.text, quote=False)  # Slack's own rule: &, < and > only
        return SlackWebhookNotifier(slack_webhook_conn_id=connection, text=text, timeout=_TIMEOUT_S)
    if settings.notify == "webhook":
        from airflow.providers.http.notifications.http import HttpNotifier

        return HttpNotifier(http_conn_id=connection, json=_payload(notice), extra_options={"timeout": _TIMEOUT_S})
    return LogNotifier(notice)


def _payload(notice: Notice) -> dict[str, Any]:
    return {
        "event": notice.anchor,
        "deployment": notice.run.deployment_id,
        "dag_id": notice.run.dag_id,
        "run_id": notice.run.run_id,
        "cause": notice.cause,
        "cost_eur": notice.cost_eur,
        "links": notice.links,
        "text": notice.text,
    }
