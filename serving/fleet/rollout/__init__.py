"""Rollouts: `actions` is the way in, `engine` a deployment that commits or is undone, `converge` a
rollback or a heal, which are never undone; the plan, the journal, the lease, the driver interface.

Imports the edges of fleet.haproxy, the canary's judgement, the shipment and the inventory; reaches
hosts through `driver.FleetDriver` alone.
"""
