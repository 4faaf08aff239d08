"""The walk through a plan: engine, one host's steps, journal and lease, the driver interface.

Imports fleet.plan and below; reaches hosts through `driver.FleetDriver` alone.
"""
