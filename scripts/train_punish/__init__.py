"""`scripts/punish train`: faults at random on the running site, and a run compared bit by bit.

Imports conf, hpc.jobs, hpc.train for the readers of a run, and scripts.box for its daemons.
"""
