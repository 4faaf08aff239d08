"""The bench of the training plane: its goals, each measured in this run, beside other tools.

Imports hpc.train for the loop as a job runs it.
"""
