"""A grid of runs: a YAML file with a configuration, overrides for all, arms with their own, and seeds. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import yaml

from medserl.errors import ConfigError
from medserl.files import regular

_UNSAFE = re.compile(r"[^\w.+=-]")
KEYS = {"title", "config", "overrides", "arms", "grid", "seeds"}


@dataclass(frozen=True, slots=True)
class Arm:
    """One setting of the grid."""

    name: str
    overrides: tuple[str, ...]
    config: str
    """Name of a configuration; one of ``medserl sft`` makes a supervised arm."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One run: an arm with a seed."""

    arm: Arm
    seed: int

    @property
    def name(self) -> str:
        return f"{self.arm.name}-seed{self.seed}"


@dataclass(frozen=True, slots=True)
class Grid:
    """All runs of one file."""

    title: str
    arms: tuple[Arm, ...]
    seeds: tuple[int, ...]

    def cells(self) -> Iterator[Cell]:
        """Seed by seed, so that a bench that is cut off has whole comparisons."""
        for seed in self.seeds:
            for arm in self.arms:
                yield Cell(arm, seed)


def read_grid(path: Path) -> Grid:
    """Read a grid.

    ``arms`` maps a name to a list of overrides, or to ``{config: NAME, overrides: [...], only: true}`` (``only``
    leaves out the overrides for all). ``grid`` maps keys to lists of values: every combination is an arm.

    Raises:
        ConfigError: no such file, no YAML, an unknown key, no arm.
    """
    try:
        found = yaml.load(regular(path).read_text(encoding="utf-8"), Loader=_NoDoubles)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; give a grid such as configs/ablations/ward.yaml") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); give the file of a grid") from None
    except (UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"{path}: is not YAML ({str(error).splitlines()[0]})") from None
    if not isinstance(found, dict):
        raise ConfigError(f"{path}: is not a mapping; it needs arms or grid")
    for key in found:
        if key not in KEYS:
            raise ConfigError(f"{path}: unknown key {key!r}; known: {', '.join(sorted(KEYS))}")
    config, common = str(found.get("config", "embedded")), _strings(path, "overrides", found.get("overrides", []))
    named = _mapping(path, "arms", found.get("arms"))
    arms = [_arm(path, str(name), value, config, common) for name, value in named.items()]
    arms += _combinations(path, _mapping(path, "grid", found.get("grid")), config, common)
    if not arms:
        raise ConfigError(f"{path}: neither arms nor grid names a run")
    names = [arm.name for arm in arms]
    if double := next((name for name in names if names.count(name) > 1), None):
        raise ConfigError(f"{path}: two arms are called {double!r}")
    seeds = found.get("seeds", [1])
    if not isinstance(seeds, list) or not seeds:
        raise ConfigError(f"{path}: seeds must be a list of whole numbers")
    return Grid(str(found.get("title", path.stem)), tuple(arms), check_seeds(seeds, f"{path}: seeds"))


def check_seeds(seeds: Sequence[Any], where: str) -> tuple[int, ...]:
    """Seeds as every library takes them (0 to 2^32 - 1, numpy's range), each once.

    Raises:
        ConfigError: names ``where`` and the seed.
    """
    for seed in seeds:
        if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**32:
            raise ConfigError(f"{where}: {seed!r} is not a seed; give whole numbers from 0 to {2**32 - 1}")
    if double := next((seed for seed in seeds if list(seeds).count(seed) > 1), None):
        raise ConfigError(f"{where}: {double} is given twice; two runs of one arm would share a folder")
    return tuple(seeds)


class _NoDoubles(yaml.SafeLoader):
    """YAML takes the last of two equal keys in silence: an arm would be gone."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        if double := next((key for key in keys if keys.count(key) > 1), None):
            raise yaml.YAMLError(f"{double!r} is given twice, line {node.start_mark.line + 1} and below")
        return super().construct_mapping(node, deep)


def _mapping(path: Path, key: str, value: Any) -> dict[Any, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: {key} must map names to lists")
    return value


def _strings(path: Path, where: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ConfigError(f"{path}: {where} must be a list of overrides such as medserl.seed=1")
    return tuple(value)


def _arm(path: Path, name: str, value: Any, config: str, common: tuple[str, ...]) -> Arm:
    if not name.replace("_", "").replace("-", "").isalnum():
        raise ConfigError(f"{path}: the arm {name!r} is also the name of a folder; use only letters, digits, - and _")
    if isinstance(value, list) or value is None:
        return Arm(name, common + _strings(path, f"arms.{name}", value or []), config)
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: arms.{name} must be a list of overrides, or have config, overrides, only")
    unknown = next((key for key in value if key not in ("config", "overrides", "only")), None)
    if unknown is not None:
        raise ConfigError(f"{path}: arms.{name} has an unknown key {unknown!r}; known: config, overrides, only")
    own = _strings(path, f"arms.{name}.overrides", value.get("overrides", []))
    return Arm(name, own if value.get("only") else common + own, str(value.get("config", config)))


def _combinations(path: Path, grid: Any, config: str, common: tuple[str, ...]) -> Iterator[Arm]:
    if not all(isinstance(key, str) and isinstance(values, list) and values for key, values in grid.items()):
        raise ConfigError(f"{path}: grid must map keys to lists of values")
    if not grid:
        return
    for values in product(*grid.values()):
        pairs = list(zip(grid, values, strict=True))
        name = "_".join(f"{key.split('.')[-1]}-{'null' if value is None else value}" for key, value in pairs)
        name = _UNSAFE.sub("-", name)  # it names a folder
        overrides = tuple(f"{key}={'null' if value is None else value}" for key, value in pairs)
        yield Arm(name, common + overrides, config)
