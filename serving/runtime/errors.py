"""The one error of the runtime."""


class InvalidInput(ValueError):
    """A request cannot be answered; the message says which input is wrong, and how.

    Answered to that client alone: other requests of the same batch are not touched.
    """
