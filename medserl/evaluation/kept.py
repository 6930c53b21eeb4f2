"""A model's answers, kept as they come: a full disk or a kill costs none that was given, and the same command goes on.

``.answers-KEY.jsonl`` beside what the command will make, private like that, and removed once it is made. KEY follows
from all that the answers follow from: model, prompts, decoding, engine.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

from medserl.errors import ConfigError
from medserl.evaluation.votes import Vote
from medserl.files import PRIVATE_FOLDER, made_folder, open_private, pointed_to
from medserl.game.labels import Label
from medserl.game.reply import Form

logger = logging.getLogger("medserl.evaluate")
_NAME = ".answers-{}.jsonl"


class KeptAnswers:
    """Votes on the texts of one request, by their number.

    Args:
        folder: Where they are kept.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file: TextIO | None = None
        self._path: Path | None = None
        self.votes: dict[int, tuple[Vote, ...]] = {}

    def take_up(self, asked: Any, texts: int, samples: int) -> None:
        """Begin to keep, with what an earlier start of the same request has left.

        Args:
            asked: All that the answers follow from; JSON.
            texts: How many texts the request has.
            samples: Votes on each.

        Raises:
            ConfigError: the same request is answered there by another process.
            OSError: nothing can be kept there.
        """
        key = hashlib.sha256(json.dumps(asked, sort_keys=True, default=str).encode()).hexdigest()[:16]
        path = self._folder / _NAME.format(key)
        self._file = open_private(path)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f"the same texts are being asked about already ({path} is held); wait for that") from None
        except OSError:
            logger.debug("%s cannot be locked", path)  # a file system without locks
        self._path = path
        self.votes = _read(self._path, texts, samples)
        if self.votes:
            logger.info("%d of %d texts were answered before (%s)", len(self.votes), texts, self._path)
        if not (b"\n" + self._path.read_bytes()).endswith(b"\n"):  # it was killed while it wrote
            self._file.write("\n")

    def keep(self, found: Mapping[int, tuple[Vote, ...]]) -> None:
        """More votes; when this returns they are on the disk."""
        self.votes.update(found)
        if self._file is None:
            return
        lines = (json.dumps({"text": index, "votes": [asdict(vote) for vote in own]}) for index, own in found.items())
        try:
            self._file.write("".join(line + "\n" for line in lines))
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            error.filename = str(self._path)
            raise

    def left(self) -> str | None:
        """Close; what stays for the next start, in a phrase. Without an answer nothing does."""
        self._close()
        if self._path is None:
            return None
        kept = _read(self._path)
        if not kept:
            self._path.unlink(missing_ok=True)
            return None
        return f"the answers to {len(kept)} texts are kept in {self._path}, and the same command continues from there"

    def remove(self) -> None:
        """Nothing has to be kept any more."""
        self._close()
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    def _close(self) -> None:
        if self._file is not None:
            with suppress(OSError):  # what a full disk did not take was told when it did not
                self._file.close()
            self._file = None


@contextmanager
def kept_beside(out: Path) -> Iterator[KeptAnswers]:
    """Answers are kept beside ``out`` until the block has made it; an error that ends the block says where they are."""
    folder = pointed_to(out).absolute().parent
    with made_folder(folder, PRIVATE_FOLDER):
        kept = KeptAnswers(folder)
        try:
            yield kept
        except BaseException as error:
            if left := kept.left():
                error.add_note(left)
            raise
        kept.remove()


def _read(path: Path, texts: int | None = None, samples: int | None = None) -> dict[int, tuple[Vote, ...]]:
    """What can be read of a file; a line that was cut off, or is of something else, is none."""
    found: dict[int, tuple[Vote, ...]] = {}
    for line in path.read_bytes().splitlines():
        try:
            row = json.loads(line)
            votes = tuple(_vote(record) for record in row["votes"])
            index = row["text"]
        except (ValueError, LookupError, TypeError, RecursionError):
            continue
        known = isinstance(index, int) and 0 <= index < (index + 1 if texts is None else texts)
        if known and len(votes) == (len(votes) if samples is None else samples):
            found[index] = votes
    return found


def _vote(record: dict[str, Any]) -> Vote:
    answer, form = record["answer"], record["form"]
    return Vote(
        **{**record, "answer": None if answer is None else Label(answer), "form": None if form is None else Form(form)}
    )
