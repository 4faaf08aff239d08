"""The nodes of a job: whether each is fit before training starts, and which fail again and again.

Imports conf, hpc.jobs, and of training the network of a job's ranks; called by the main of a rank.
"""
