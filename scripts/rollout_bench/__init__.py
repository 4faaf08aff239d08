"""The bench of rollouts: goals of the fleet, each measured in this run, beside other tools.

Imports scripts.box for hosts as the site makes them, and serving.fleet as fab uses it.
"""
