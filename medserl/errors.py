"""Errors that a user can cause, and the exit codes that they end with."""

from collections.abc import Sequence

EXIT_OK = 0
EXIT_FAILURE = 1
EXIT_USAGE = 2
EXIT_OUT_OF_TIME = 75
"""``EX_TEMPFAIL`` of sysexits.h: stopped before the deadline, with a checkpoint; the same command goes on."""


class UserError(ValueError):
    """One sentence for the user: what is wrong, where (file, row, key), what to do.

    The command line prints the sentence without a traceback and ends with ``EXIT_USAGE`` (2).
    """


class SeveralErrors(UserError):
    """Several of them, each of which has to be mended.

    Args:
        found: At least two.
    """

    def __init__(self, found: Sequence[UserError]) -> None:
        self.lines = (
            f"{len(found)} things stand in the way of a start:",
            *(f"  {number}. {error}" for number, error in enumerate(found, 1)),
        )
        super().__init__("\n".join(self.lines))


class DataError(UserError):
    """A data file that cannot be used; the sentence names the file and, where there is one, the row."""


class ConfigError(UserError):
    """A configuration that cannot work; the sentence names the key."""
