"""The site in a box: one file per outside system, mostly pure builders of config text.

`programs.all_programs(site)` is the whole box as a value; `up`, `down` and `status` compare that
value with what runs and do the difference. Imports conf, serving and the standard library, and of
the training plane nothing: the box runs its commands as their own users.
"""
