"""Jobs: what is frozen at submit (spec, snapshot), how it is sent, and where it stands."""
