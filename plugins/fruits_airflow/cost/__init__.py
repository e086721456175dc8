"""Prices, the AWS price list and cost estimates."""
