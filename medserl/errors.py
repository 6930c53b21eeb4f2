"""Errors that a user can cause, how several of them are told at once, and the exit codes that they end with."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

EXIT_OK = 0
EXIT_FAILURE = 1
EXIT_USAGE = 2
EXIT_OUT_OF_TIME = 75
"""``EX_TEMPFAIL`` of sysexits.h: stopped before the deadline, with a checkpoint; the same command goes on."""


class UserError(ValueError):
    """One sentence for the user: what is wrong, where (file, row, key), what to do.

    The command line prints the sentence without a traceback and ends with ``EXIT_USAGE`` (2).

    Args:
        sentence: What is printed.
        keys: Keys of the configuration whose values are not known because of it, so that nothing can be said of what
            follows from them.
    """

    def __init__(self, sentence: str = "", keys: Sequence[str] = ()) -> None:
        super().__init__(sentence)
        self.keys = tuple(keys)


class SeveralErrors(UserError):
    """Several of them, each of which has to be mended.

    Args:
        found: At least two.
    """

    def __init__(self, found: Sequence[UserError]) -> None:
        self.found = tuple(found)
        self.lines = (
            f"{len(found)} things stand in the way of a start:",
            *(f"  {number}. {error}" for number, error in enumerate(found, 1)),
        )
        super().__init__("\n".join(self.lines))


class DataError(UserError):
    """A data file that cannot be used; the sentence names the file and, where there is one, the row."""


class ConfigError(UserError):
    """A configuration that cannot work; the sentence names the key."""


class Problems:
    """Problems of a start, found one after the other and told all at once: each try costs a user minutes.

    A key whose value was told to be wrong has a usual value in its place, so that all the rest can be looked at. What
    comes out as wrong with that value is nobody's mistake: a sentence that names such a key is left out.
    """

    def __init__(self) -> None:
        self._found: list[UserError] = []
        self._doubted: dict[str, re.Pattern[str]] = {}

    def add(self, error: UserError) -> None:
        """Keep an error, each sentence once, unless it follows from another one."""
        if isinstance(error, SeveralErrors):
            for one in error.found:
                self.add(one)
            return
        sentence = str(error)
        follows = not error.keys and any(name.search(sentence) for name in self._doubted.values())
        if not follows and sentence not in map(str, self._found):
            self._found.append(error)
        self._doubted |= {key: _name(key) for key in error.keys}

    def take(self, others: "Problems") -> None:
        """Keep what others have found."""
        for error in others._found:
            self.add(error)

    def doubts(self, *keys: str) -> bool:
        """Whether one of these keys has only a usual value in the place of its own."""
        return any(key in self._doubted for key in keys)

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Keep a user's error that the block raises, and go on behind the block."""
        try:
            yield
        except UserError as error:
            self.add(error)

    def tell(self) -> None:
        """Raise what was found: one error as it is, several as one with a line for each.

        Raises:
            UserError: something was found.
        """
        if len(self._found) == 1:
            raise self._found[0]
        if self._found:
            raise SeveralErrors(self._found)


@contextmanager
def all_told(problems: Problems | None = None) -> Iterator[Problems]:
    """Collect what a block finds, for a caller that goes on collecting, or to tell it when the block ends.

    Args:
        problems: The caller's, who tells them; None: the block's own, told at its end.

    Raises:
        UserError: what was found, where the block has its own, or where an error of a user's ends it: then nothing can
            be looked at any more.
    """
    found = Problems() if problems is None else problems
    try:
        yield found
    except UserError as error:
        found.add(error)
        found.tell()
    if problems is None:
        found.tell()


def _name(key: str) -> re.Pattern[str]:
    """Finds a key in a sentence: in full, without its first parts, by its last part where that is a name of its own,
    or by a long section of it."""
    parts = key.split(".")
    if len(parts) == 1 and "_" not in key:  # a word like any other
        return re.compile(r"(?!)")
    names = {".".join(parts[first:]) for first in range(max(1, len(parts) - 1))}
    if "_" in parts[-1]:
        names |= {parts[-1], parts[-1].replace("_", " ")}
    section = ".".join(parts[:-1]) if len(parts) > 3 else ""
    either = "|".join(map(re.escape, sorted(names, key=len, reverse=True)))
    within = rf"|{re.escape(section)}(?![\w.])" if section else ""
    return re.compile(rf"(?<![\w.])(?:(?:{either})(?!\w|\.\w){within})")
