"""Going on from a run that ended: a new run, whose spec names its parent.

A spec stays what was frozen, so a run with another time limit is another run. It begins with its
parent's checkpoint (the same files, linked), and with its parent's curve up to there: whoever looks
at the newest run sees all of it, and the parent's folder stays as it ended. A new run of the old
name would have to change a spec, or to keep two in one folder, and its log, attempts and time line
would no longer be those of one spec.

Imports the run's folder, its spec and the submit; nothing of training, and nothing imports it but
the command.
"""
