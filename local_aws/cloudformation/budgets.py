"""`AWS::Budgets::Budget`, and the operation that lists a budget's subscribers. moto has neither."""

import contextlib
import json
from typing import Any

from moto.budgets.responses import BudgetsResponse
from moto.core.common_models import CloudFormationModel

from local_aws.cloudformation.resources import CompleteResource, Properties, Scope


class Budget(CompleteResource, CloudFormationModel):
    """A budget. Its id is its name."""

    kind = "AWS::Budgets::Budget"
    known = ("Budget", "NotificationsWithSubscribers")

    @classmethod
    def create(cls, name: str, properties: Properties, scope: Scope) -> Any:
        budget = {"BudgetName": name, **properties["Budget"]}
        if limit := budget.get("BudgetLimit"):
            budget["BudgetLimit"] = {"Amount": str(limit["Amount"]), "Unit": limit["Unit"]}
        notifications = []
        for item in properties.get("NotificationsWithSubscribers") or []:
            threshold = {"Threshold": float(item["Notification"]["Threshold"])}
            notifications.append({**item, "Notification": item["Notification"] | threshold})
        scope.client("budgets").create_budget(
            AccountId=scope.account_id, Budget=budget, NotificationsWithSubscribers=notifications
        )
        return cls(budget["BudgetName"])

    def update(self, properties: Properties, scope: Scope) -> None:
        self.delete(scope)  # moto has no UpdateBudget
        self.create(self.physical_resource_id, properties, scope)

    def delete(self, scope: Scope) -> None:
        budgets = scope.client("budgets")
        with contextlib.suppress(budgets.exceptions.NotFoundException):
            budgets.delete_budget(AccountId=scope.account_id, BudgetName=self.physical_resource_id)


def _describe_subscribers(self: BudgetsResponse) -> str:
    """Answer DescribeSubscribersForNotification."""
    budget = self.backend.budgets[self._get_param("AccountId")].get(self._get_param("BudgetName"))
    details = self._get_param("Notification")
    subscribers = [
        subscriber
        for notification in (budget.notifications if budget else [])
        if all(notification.details.get(key) == value for key, value in details.items())
        for subscriber in notification.subscribers
    ]
    return json.dumps({"Subscribers": subscribers})


setattr(BudgetsResponse, "describe_subscribers_for_notification", _describe_subscribers)  # noqa: B010
