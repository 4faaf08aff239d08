"""Tools that compile, count, time and tune every operator; no operator needs them to run.
Imports all of kernels; nothing of kernels imports it."""
