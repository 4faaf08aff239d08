"""The plan and the walk through it: one host's steps, the journal, the lease, the driver interface.

Imports the edges of fleet.haproxy, the shipment and the inventory; reaches hosts through
`driver.FleetDriver` alone.
"""
