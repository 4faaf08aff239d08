"""`fab`: the tasks that it lists, what each does, and the status of the fleet.

Imports every room of the fleet, lazily in `tasks`, so that `fab -l` is quick.
"""
