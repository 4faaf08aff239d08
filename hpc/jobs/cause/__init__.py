"""The end of an attempt: its first cause, and whether the run comes back by itself.

Imports `rank`, `run` and `spec`; no backend. `attempt_end` is the program that both backends run
after an attempt; `first_cause` and `comeback` decide, purely.
"""
