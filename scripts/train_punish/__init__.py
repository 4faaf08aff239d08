"""`scripts/punish train`: faults at random on the running site, and a run compared bit by bit."""
