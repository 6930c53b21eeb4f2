"""The one place that turns what a user can cause into a sentence and an exit code."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Callable, Sequence

from medserl.errors import EXIT_FAILURE, EXIT_USAGE, SeveralErrors, UserError

EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141
"""128 + SIGPIPE: whoever read the output has gone; what a shell shows for other programs then."""
_OTHERS = 0o077
_CHOOSE = "choose a path that is there and that you may use"
_MAKE_ROOM = "make room, or raise the limit, and run the command again"
# What a path can be, and what a disk can be: the first is the user's to mend (2), the second the machine's (1).
_PATHS = {
    errno.EACCES: _CHOOSE,
    errno.EPERM: _CHOOSE,
    errno.EROFS: _CHOOSE,
    errno.ENOENT: _CHOOSE,
    errno.ENOTDIR: _CHOOSE,
    errno.EISDIR: _CHOOSE,
    errno.EEXIST: _CHOOSE,
    errno.ELOOP: _CHOOSE,
    errno.ENAMETOOLONG: _CHOOSE,
    errno.ETXTBSY: _CHOOSE,
    errno.EBUSY: _CHOOSE,
    errno.EXDEV: _CHOOSE,
    errno.ENOTEMPTY: _CHOOSE,
    errno.EINVAL: _CHOOSE,
    errno.ENXIO: _CHOOSE,
    errno.ENODEV: _CHOOSE,
    errno.EOPNOTSUPP: _CHOOSE,
}
_DISKS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ESTALE)


def guarded(command: Callable[[], int]) -> int:
    """Run a command; tell in one sentence what a user, a disk or a limit is to blame for.

    Returns:
        The command's exit code; 2 for what the user can mend, 1 for a disk or a limit, 130 when interrupted, 141 when
        nobody reads the output any more. Any other exception is the program's own fault and passes with its traceback.
    """
    tolerate_terminal()
    os.umask(os.umask(_OTHERS) & _OTHERS)  # one that takes rights from the owner himself is nothing to work under
    try:
        try:
            _check_here()
            return command()
        finally:
            sys.stdout.flush()  # here, not when the interpreter ends: --help leaves by SystemExit
    except UserError as error:
        return _told(error.lines if isinstance(error, SeveralErrors) else str(error), EXIT_USAGE)
    except KeyboardInterrupt as error:
        print(_plain("; ".join(("medserl: interrupted", *_notes(error)))), file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        _forget_output()
        return EXIT_BROKEN_PIPE
    except OSError as error:
        return _of_system(error)
    except MemoryError as error:
        said = ("there is not enough memory for this", *_notes(error), "ask for less, or raise the limit (ulimit -v)")
        return _told("; ".join(said), EXIT_FAILURE)
    except ImportError as error:
        if "failed to map segment" not in str(error):
            raise
        return _told(f"a library cannot be loaded ({error}); raise the memory limit (ulimit -v)", EXIT_FAILURE)


def _check_here() -> None:
    """Raise where the current directory is gone: Hydra and relative paths need one."""
    try:
        os.getcwd()
    except OSError as error:
        raise UserError(
            f"the current directory is gone ({os.strerror(error.errno or 0)}); cd to one that is there"
        ) from None


def tolerate_terminal() -> None:
    """Show what a terminal has no character for as ``?``, instead of ending."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


def _of_system(error: OSError) -> int:
    if error.errno in _DISKS:
        if not error.filename:
            _forget_output()  # perhaps it is standard output that is full
        said = (f"{_where(error)}{os.strerror(error.errno)}", *_notes(error), _MAKE_ROOM)
        return _told("; ".join(said), EXIT_FAILURE)
    if error.errno in _PATHS and error.filename:
        return _told(f"{_where(error)}{error.strerror}; {_PATHS[error.errno]}", EXIT_USAGE)
    raise error


def _notes(error: BaseException) -> list[str]:
    """What was added to an error on its way here: what is kept, for example."""
    return list(getattr(error, "__notes__", ()))


def _where(error: OSError) -> str:
    name = error.filename2 or error.filename
    return f"{os.fsdecode(name)}: " if isinstance(name, str | bytes | os.PathLike) else ""


def _told(said: str | Sequence[str], code: int) -> int:
    lines = [said] if isinstance(said, str) else said
    print("medserl: error: " + "\n".join(map(_plain, lines)), file=sys.stderr)
    return code


def _plain(sentence: str) -> str:
    """A name may hold a line break, or what moves a terminal's cursor."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in sentence)


def _forget_output() -> None:
    """Have the interpreter's own flush at the end find a file that takes everything."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
