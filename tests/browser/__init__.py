"""A package, so that pytest ends what has package scope here before it runs other tests.

Without it such fixtures last as long as the session, and no other test can run an event loop beside Playwright's.
"""
