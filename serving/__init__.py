"""The serving plane: packages, the gates a release passes, the fleet, and what is observed of it.

Never imports the training plane, torch or deepspeed.
"""
