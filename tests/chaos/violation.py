"""A promise that was broken."""


class ViolationError(AssertionError):
    """Says which."""
