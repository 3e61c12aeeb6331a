"""The reason why a series is not written."""


class Refused(Exception):
    """The series cannot be written without saying something untrue."""
