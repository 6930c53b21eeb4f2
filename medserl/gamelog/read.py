"""Reads the game log of a run, finished or under way."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from medserl.errors import ConfigError
from medserl.gamelog.kinds import Row
from medserl.gamelog.parts import FOLDER, parts
from medserl.gamelog.rows import SCHEMA

logger = logging.getLogger("medserl.games")


def check_games(run_dir: Path) -> None:
    """Raise ConfigError unless there is a log to read."""
    if not run_dir.is_dir():
        raise ConfigError(f"{run_dir}: no such folder; give the directory of a run of `medserl train`")
    if not parts(run_dir):
        raise ConfigError(
            f"{run_dir}: holds no games; a run writes them to {FOLDER}/ as its rounds end, for synthetic notes by "
            "itself and for others with medserl.game_log.enabled=true"
        )


def read_games(run_dir: Path) -> Iterator[Row]:
    """The rows of all parts, in the order of rounds. A part that is damaged is left out, with a line that names it; so
    is one that was just removed for a newer one."""
    for part in parts(run_dir):
        yield from read_part(part)


def read_part(part: Path) -> list[Row]:
    """The rows of one part; empty where it cannot be read."""
    try:
        table = pq.read_table(part)
        columns = [_column(table, field) for field in SCHEMA]
    except FileNotFoundError:
        return []
    except (OSError, pa.ArrowException) as error:
        logger.warning("%s: cannot be read (%s); its games are left out", part, type(error).__name__)
        return []
    rows: list[Row] = pa.Table.from_arrays(columns, schema=SCHEMA).to_pylist()
    return rows


def _column(table: pa.Table, field: pa.Field) -> pa.ChunkedArray:
    """A column as this version knows it; nulls where the part does not have it."""
    if field.name not in table.column_names:
        return pa.chunked_array([pa.nulls(len(table), field.type)])
    return table.column(field.name).cast(field.type)
