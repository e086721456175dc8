"""CloudFormation that creates what a template says, or fails: nothing is skipped silently."""
