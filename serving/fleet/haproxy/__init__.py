"""A region's HAProxy: its configuration, and its state at run time.

Imports the fleet's inventory only.
"""
