"""Real hosts over SSH: connections, rsync, Triton through a tunnel, and the driver of them.

Imports every room of the fleet but cli.
"""
