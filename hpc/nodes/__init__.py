"""The nodes of a job: what each has to offer before training starts, and which fail again and again.

Above the training loop, whose network the checks use; called by the main of a rank.
"""
