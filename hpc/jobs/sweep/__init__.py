"""Sweeps: their names, the ledger of their trials, sending what is missing, and the best trial.

Imports the submit and the states of runs; nothing of the jobs' rooms imports it.
"""
