"""Recording rules and alerts, declared as values.

Imports observe.settings only.
"""
