"""Set-up with the standard library alone: the virtual environment, the pinned stack, the doctor, wheels to carry.

Run from the project's root, as the Makefile does: `python3 -m bootstrap setup` or `... doctor`.
"""
