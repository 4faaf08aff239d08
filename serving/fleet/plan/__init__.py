"""The changes of a rollout, as values: the signed version and the plan of waves.

Imports serving.artifact, serving.triton and the fleet's inventory; touches no host.
"""
