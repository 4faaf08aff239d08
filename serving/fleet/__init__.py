"""The fleet: hosts, edges, and the walk of a signed version through them; rooms by effect.

Imports serving.artifact, serving.triton and conf; `inventory` is what every room shares.
"""
