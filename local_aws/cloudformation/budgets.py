"""`AWS::Budgets::Budget`, which moto skips, and the question who is told, which moto cannot answer."""

from __future__ import annotations

import contextlib
import json
from typing import Any

from moto.budgets.responses import BudgetsResponse
from moto.core.common_models import CloudFormationModel

from local_aws.cloudformation.resources import Properties, Whole


class Budget(Whole, CloudFormationModel):
    """`AWS::Budgets::Budget`, which moto skips; its name is its id."""

    kind = "AWS::Budgets::Budget"
    known = frozenset({"Budget", "NotificationsWithSubscribers"})

    @classmethod
    def make(cls, name: str, properties: Properties, account_id: str, region: str) -> Any:
        """Makes the budget."""
        budget = {"BudgetName": name, **properties["Budget"]}
        if limit := budget.get("BudgetLimit"):
            budget["BudgetLimit"] = {"Amount": str(limit["Amount"]), "Unit": limit["Unit"]}
        notifications = [
            {
                **one,
                "Notification": {
                    **one["Notification"],
                    "Threshold": float(one["Notification"]["Threshold"]),
                },
            }
            for one in properties.get("NotificationsWithSubscribers") or []
        ]
        cls.clients.get("budgets", region).create_budget(
            AccountId=account_id, Budget=budget, NotificationsWithSubscribers=notifications
        )
        return cls(budget["BudgetName"])

    @classmethod
    def update_from_cloudformation_json(
        cls,
        original_resource: Any,
        new_resource_name: str,
        cloudformation_json: Properties,
        account_id: str,
        region_name: str,
    ) -> Any:
        """Makes the budget anew: moto has no UpdateBudget."""
        cls._drop(original_resource.physical_resource_id, account_id, region_name)
        return cls.make(new_resource_name, cls._properties(cloudformation_json), account_id, region_name)

    @classmethod
    def delete_from_cloudformation_json(
        cls,
        resource_name: str,
        cloudformation_json: Properties,  # noqa: ARG003  moto passes it with its functions unresolved
        account_id: str,
        region_name: str,
    ) -> None:
        """Removes the budget."""
        cls._drop(resource_name, account_id, region_name)

    @classmethod
    def _drop(cls, name: str, account_id: str, region: str) -> None:
        budgets = cls.clients.get("budgets", region)
        with contextlib.suppress(budgets.exceptions.NotFoundException):
            budgets.delete_budget(AccountId=account_id, BudgetName=name)


def _describe_subscribers(self: BudgetsResponse) -> str:
    """DescribeSubscribersForNotification, which moto has not."""
    budget = self.backend.budgets[self._get_param("AccountId")].get(self._get_param("BudgetName"))
    asked = self._get_param("Notification")
    told = [
        subscriber
        for one in (budget.notifications if budget else [])
        if all(one.details.get(key) == value for key, value in asked.items())
        for subscriber in one.subscribers
    ]
    return json.dumps({"Subscribers": told})


setattr(BudgetsResponse, "describe_subscribers_for_notification", _describe_subscribers)  # noqa: B010
