"""The one error of data preparation."""

from conf.errors import LockgateError


class DataRefused(LockgateError, ValueError):
    """A source, a column or a published dataset is not what it must be.

    The text has the fault, its place and the remedy. Nothing was published: the previous dataset is
    as it was.
    """
