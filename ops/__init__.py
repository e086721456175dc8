"""What a team runs against an AWS account: deployment, forecast, prices, shared links, export of an image."""
