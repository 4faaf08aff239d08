"""A region's HAProxy: its configuration, and its state at run time.

Imports the fleet's inventory and routing, and the names that an edge's machine knows it by.
"""
