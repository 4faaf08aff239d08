"""The frozen description of a run: its checked config, its code and its environment."""
