"""Optimizers and learning-rate schedules; importing them imports no torch."""
