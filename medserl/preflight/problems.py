"""Problems of a start, found one after the other and told all at once: each try costs a user minutes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from medserl.errors import SeveralErrors, UserError


class Problems:
    """Collects what a user can mend."""

    def __init__(self) -> None:
        self._found: list[UserError] = []

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Keep a user's error that the block raises, once, and go on behind the block."""
        try:
            yield
        except UserError as error:
            if str(error) not in map(str, self._found):
                self._found.append(error)

    def tell(self) -> None:
        """Raise what was found: one error as it is, several as one with a line for each.

        Raises:
            UserError: something was found.
        """
        if len(self._found) == 1:
            raise self._found[0]
        if self._found:
            raise SeveralErrors(self._found)
