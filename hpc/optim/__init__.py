"""Optimizers and learning-rate schedules, named by `optim._target_`.

Imports conf; torch and DeepSpeed only when an optimizer is built.
"""
