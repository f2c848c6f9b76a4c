"""The one error type that a person gets to read."""


class StackError(Exception):
    """A sentence that names what is missing or broken and what to do about it."""
