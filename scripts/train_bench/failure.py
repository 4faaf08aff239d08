"""The error of a part of this bench that could not be measured."""


class BenchFailed(Exception):
    """A part could not be measured; the message is the reason."""
