"""The one error of the runtime."""


class InvalidInput(ValueError):
    """A request cannot be answered; the message names the input and its fault.

    Answered to that client alone: other requests of the same batch are not touched.
    """
