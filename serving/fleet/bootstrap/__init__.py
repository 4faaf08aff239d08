"""A bare host becomes a serving host: its wanted facts as values, and their way onto it over SSH.

Imports serving.artifact, serving.host's installation, serving.triton's server, conf, and of the
fleet inventory, errors and ssh. `host_side` and `restart_request` run on the host by themselves.
"""
