"""The judged canary: probes of a new version beside the one in production, and a verdict on both.

Imports the inventory, the routing and the errors of the fleet. The fleet itself is reached through
`gathering.ProbedFleet` alone; the verdict is a pure function of what was gathered.
"""
