"""The one error of data preparation."""

from conf.errors import LockgateError


class DataRefused(LockgateError, ValueError):
    """A source, a column or a published dataset is not what it must be; says what, where, what now.

    Whoever raises it has published nothing: the previous dataset is as it was.
    """
