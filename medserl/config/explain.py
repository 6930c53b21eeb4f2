"""What a configuration's keys mean, read from where they are written: the dataclasses of our section, the comments of
our files and of verl's. Imports neither torch nor verl.
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
import functools
import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

import yaml
from omegaconf import DictConfig, OmegaConf

from medserl.config.engines import CRITIC_FOLLOWS
from medserl.config.family import BASES, SFT, TRAIN, Family, config_path, configs_dir, verl_config_dir
from medserl.config.mistakes import verl_defaults
from medserl.config.settings import RewardSettings
from medserl.errors import ConfigError
from medserl.game import RewardConfig

OWN = "medserl"
# verl's defaults lists name one part of a component by these (verl/trainer/config/ppo_trainer.yaml and below).
_CHOSEN = {"model_engine": "megatron", "engine": "megatron", "optim": "megatron"}
_KEY = re.compile(r"^( *)([A-Za-z_][\w.]*):(?:\s|$)")


@dataclass(frozen=True)
class Entry:
    """A key of a configuration.

    Attributes:
        key: Its dotted name.
        kind: Type, for keys of the ``medserl`` section; else empty.
        default: verl's default, or that of our section.
        meaning: What verl's file or our dataclass says of it; may be empty.
        reason: Why MedSeRL sets it to something else; may be empty.
    """

    key: str
    kind: str
    default: Any
    meaning: str
    reason: str


def family_of(config: DictConfig) -> Family:
    """Whether a configuration is one for `medserl train` or for `medserl sft`."""
    return SFT if "engine" in config else TRAIN


def explain_key(config: DictConfig, key: str, name: str) -> str:
    """Everything that is known of a key, or of the keys of a section, in a few lines.

    Args:
        config: A resolved configuration.
        key: A dotted name.
        name: What it was composed from: a name in ``configs/``, or the path of a file.

    Raises:
        ConfigError: the configuration has no such key; the sentence names near ones.
    """
    if key not in (known := set(_all(config))):
        near = [other for other in sorted(known) if other.endswith(f".{key}")]
        near += [other for other in difflib.get_close_matches(key, known, n=3) if other not in near]
        hint = f"; did you mean {' or '.join(near[:3])}?" if near else "; `medserl config` prints all of them"
        raise ConfigError(f"--explain {key}: the configuration has no such key{hint}")
    found = entry(config, key, name)
    value = OmegaConf.select(config, key)
    lines = [key + (f" ({found.kind})" if found.kind else "")]
    if OmegaConf.is_config(value) and len(value):
        children = (entry(config, f"{key}.{child}", name) for child in value if isinstance(child, str))
        lines += [f"  {found.meaning}"] if found.meaning else []
        lines += [f"  {child.key.rpartition('.')[2]}: {_first(child.meaning or child.reason)}" for child in children]
        return "\n".join(line.rstrip(": ") for line in lines)
    lines.append(f"  value    {shown(value)}")
    if found.default != value:
        lines.append(f"  default  {shown(found.default)}{'' if key.startswith(OWN) else ' (verl)'}")
    lines += [f"  {text}" for text in (found.meaning, found.reason and f"here: {found.reason}") if text]
    return "\n".join(lines)


def changed(config: DictConfig, name: str) -> list[Entry]:
    """The keys whose value is not the default, verl's or our section's, in their order; arguments as above. What the
    critic's section has from the policy's is told there."""
    found = (entry(config, key, name) for key in _all(config))
    leaves = (e for e in found if not OmegaConf.is_dict(OmegaConf.select(config, e.key)))
    told = (e for e in leaves if not any(e.key.startswith(f"{section}.") for section in CRITIC_FOLLOWS))
    return [e for e in told if e.default != OmegaConf.select(config, e.key)]


def shown(value: Any) -> str:
    """A value on one line, as an override takes it."""
    plain = OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
    text: str = yaml.safe_dump(plain, default_flow_style=True, width=10_000, allow_unicode=True).strip()
    return text.removesuffix("...").strip()


def entry(config: DictConfig, key: str, name: str) -> Entry:
    """What is known of one key of ``config``, which was composed from ``name``."""
    family = family_of(config)
    own = own_entries(family)
    if key in own:
        return dataclasses.replace(own[key], reason=our_comments(name).get(key, ""))
    default = OmegaConf.select(verl_defaults(family), key)
    plain = OmegaConf.to_container(default) if OmegaConf.is_config(default) else default
    return Entry(key, "", plain, verl_comments(family).get(key, ""), our_comments(name).get(key, ""))


def _all(config: DictConfig) -> Iterator[str]:
    def walk(node: Any, prefix: str) -> Iterator[str]:
        for name in node:
            key = f"{prefix}{name}"
            yield key
            value = OmegaConf.select(node, str(name))
            if OmegaConf.is_dict(value):
                yield from walk(value, f"{key}.")

    return walk(config, "")


def _first(text: str) -> str:
    """The first sentence."""
    return re.split(r"(?<=[.;])\s", text, maxsplit=1)[0].rstrip(";")


# ---------------------------------------------------------------- our section: dataclasses


@functools.cache
def own_entries(family: Family) -> dict[str, Entry]:
    """Every key of the ``medserl`` section with type, default and the text below it in its dataclass."""
    return {found.key: found for found in _of_class(family.settings, OWN)}


def _of_class(settings: type, prefix: str) -> Iterator[Entry]:
    hints = get_type_hints(settings)
    texts = (_texts(RewardConfig) if settings is RewardSettings else {}) | _texts(settings)
    for field in dataclasses.fields(settings):
        key = f"{prefix}.{field.name}"
        kinds = (hints[field.name], *get_args(hints[field.name]))
        inner = next((kind for kind in kinds if dataclasses.is_dataclass(kind)), None)
        default = _default(field)
        about = texts.get(field.name, "")
        if isinstance(inner, type):
            about = about or " ".join((inspect.getdoc(inner) or "").split())
        yield Entry(key, _kind(field.type), default, about, "")
        if isinstance(inner, type):
            for child in _of_class(inner, key):
                own = getattr(default, child.key.rpartition(".")[2], child.default)
                yield dataclasses.replace(child, default=own) if child.key.count(".") == key.count(".") + 1 else child


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default is not dataclasses.MISSING:
        return field.default
    return field.default_factory() if field.default_factory is not dataclasses.MISSING else None


def _kind(annotation: Any) -> str:
    return str(annotation).replace(" | None", " or null")


def _texts(settings: type) -> dict[str, str]:
    """Field -> the string below it in the source."""
    (definition,) = ast.parse(inspect.cleandoc("\n" + inspect.getsource(settings))).body
    assert isinstance(definition, ast.ClassDef)
    found = {}
    for one, after in zip(definition.body, definition.body[1:], strict=False):
        match one, after:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str() as text)):
                found[name] = " ".join(text.split())
    return found


# ---------------------------------------------------------------- verl's and our files: comments


@functools.cache
def verl_comments(family: Family) -> dict[str, str]:
    """Key -> the comment above it in verl's files, for the parts that this family chooses."""
    found: dict[str, str] = {}
    for path, package in _parts(verl_config_dir(), family.base, ""):
        prefix = f"{package}." if package else ""
        found |= {f"{prefix}{key}": text for key, text in comments(path).items()}
    return found


def _parts(folder: Path, name: str, package: str) -> Iterator[tuple[Path, str]]:
    """The files that a configuration of verl's is composed of, in the order in which later ones override."""
    path = folder / f"{name}.yaml"
    if not path.is_file():
        return
    listed = (yaml.safe_load(path.read_text(encoding="utf-8")) or {}).get("defaults", [])
    for item in listed if isinstance(listed, list) else []:
        if item == "_self_":
            continue
        group, choice = next(iter(item.items())) if isinstance(item, dict) else ("", item)
        where, _, target = group.removeprefix("override ").partition("@")
        for key, value in _CHOSEN.items():
            choice = value if group == key else str(choice).replace(f"${{{key}}}", value)
        below = f"{package}.{target}".strip(".") if target and target != "_global_" else package
        yield from _parts((path.parent / where).resolve(), choice, below)
    yield path, package


@functools.cache
def our_comments(name: str) -> dict[str, str]:
    """Key -> why a configuration, or one that it stands on, sets it: the comment above the key or behind it."""
    path = config_path(name) if name not in BASES else configs_dir() / f"{name}.yaml"
    found: dict[str, str] = {}
    for item in yaml.safe_load(path.read_text(encoding="utf-8"))["defaults"]:
        if isinstance(item, str) and (configs_dir() / f"{item}.yaml").is_file():
            found |= our_comments(item)
    return found | comments(path)


def comments(path: Path) -> dict[str, str]:
    """Dotted key -> its comment, of a YAML file in block style."""
    found: dict[str, str] = {}
    stack: list[tuple[int, str]] = []
    above: list[str] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        stripped = line.strip()
        if stripped.startswith("#"):
            above.append(stripped.lstrip("# "))
            continue
        match = _KEY.match(line)
        if match:
            indent = len(match[1])
            while stack and stack[-1][0] >= indent:
                stack.pop()
            stack.append((indent, match[2]))
            behind = re.search(r"\s#\s+(.*)$", line)
            text = " ".join([*above, *([behind[1]] if behind else [])])
            if text:
                found[".".join(name for _, name in stack)] = text
        above = []
    return found
