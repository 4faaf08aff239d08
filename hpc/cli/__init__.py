"""The `lockgate` command: thin verbs that parse, call one function, and print.

Each verb imports what it needs when it is typed: hpc.jobs, hpc.data, serving.release.
"""
