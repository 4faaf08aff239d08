"""Models: a network and its config dataclass in one file each."""
