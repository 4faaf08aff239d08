"""The fleet's capacity: load against the knee, hosts to spare, growth, and scaling decisions.

Imports conf, serving.artifact, and from serving.fleet.haproxy the form of the edges' log. It
changes nothing: values in, values out.
"""
