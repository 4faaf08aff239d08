"""Jobs: freezing a run at submit (spec, snapshot), sending it, and finding its state."""
