"""The local backend: a run's ranks as processes of this machine."""
