"""What a team does once with an AWS account: deploy include/stack.yaml, fill it, look it over, take it down."""
