"""A fleet in memory behind the driver interface, for tests and for plans of fleets that are not.

Imports the inventory, the routing and the rollout's driver interface, never SSH or HAProxy.
"""
