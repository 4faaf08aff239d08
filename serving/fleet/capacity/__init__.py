"""The fleet's capacity: load against the knee, hosts to spare, growth, and scaling decisions.

Imports serving.artifact and conf only: values in, values out, nothing is changed.
"""
