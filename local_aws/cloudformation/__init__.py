"""A CloudFormation that creates everything in a template or fails."""
