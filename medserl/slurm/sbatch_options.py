"""sbatch's options: which of them ask for the same thing, what they ask for on a node, how a script writes them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from medserl.errors import ConfigError

Options = dict[str, str | None]
"""Long options by name, without ``--``; None for one without a value."""
GPU_OPTIONS = ("gpus-per-node", "gres", "gpus", "gpus-per-task", "gpus-per-socket", "tres-per-node", "tres-per-task")
RESOURCES = (GPU_OPTIONS, ("cpus-per-task", "cpus-per-gpu"), ("mem", "mem-per-cpu", "mem-per-gpu"))
ALTERNATIVES = (
    *RESOURCES,
    ("exclusive", "oversubscribe"),
    ("requeue", "no-requeue"),
)
"""Options that stand for each other (``man sbatch``); the later one counts."""
LISTS = ("gres", "tres-per-node", "tres-per-task")
"""GPU options that may ask for other things too."""
ENVIRONMENT = {
    "SBATCH_GPUS": "gpus",
    "SBATCH_GPUS_PER_NODE": "gpus-per-node",
    "SBATCH_GPUS_PER_TASK": "gpus-per-task",
    "SBATCH_GRES": "gres",
    "SBATCH_TRES_PER_TASK": "tres-per-task",
    "SBATCH_MEM_PER_NODE": "mem",
    "SBATCH_MEM_PER_CPU": "mem-per-cpu",
    "SBATCH_MEM_PER_GPU": "mem-per-gpu",
    "SBATCH_CPUS_PER_GPU": "cpus-per-gpu",
    "SBATCH_TIMELIMIT": "time",
    "SBATCH_SIGNAL": "signal",
}
"""Variables that sbatch reads as options, of those that the arithmetic knows."""
_OPTION = re.compile(r"--([a-z-]+)(?:=(.*))?", re.DOTALL)
_GPU_PART = re.compile(r"(?:gres[/:])?gpu(?:[:=].*)?")
_REAL_NO = ("no-kill", "no-requeue")


def options_of(words: Sequence[str]) -> Options:
    """Options as a command line or the site's file gives them, in their order.

    Raises:
        ConfigError: a word that is no ``--name`` or ``--name=value``.
    """
    found: Options = {}
    for word in words:
        match = _OPTION.fullmatch(word)
        if match is None:
            raise ConfigError(f"sbatch option {word!r}: write it as --name=value")
        put(found, match[1], match[2], ())
    return found


def put(options: Options, name: str, value: str | None, script: Sequence[str]) -> None:
    """Add an option, in the place of all that ask for the same in another way; ``no-NAME`` takes one of ``script`` out.

    Raises:
        ConfigError: a value that would not stay on one line of a script.
    """
    if value is not None and not value.isprintable():
        raise ConfigError(f"--{name}={value!r}: line breaks and other control characters are not allowed here")
    if name.startswith("no-") and name not in _REAL_NO and name[3:] in script:
        options.pop(name[3:], None)
        return
    if name not in LISTS or asks_for_gpus(value):
        for other in next((group for group in ALTERNATIVES if name in group), ()):
            if other == name or other not in options:
                continue
            rest = [part for part in (options[other] or "").split(",") if part and not _GPU_PART.fullmatch(part)]
            if other in LISTS and rest:
                options[other] = ",".join(rest)
            else:
                del options[other]
    options.pop(name, None)
    options[name] = value


def merged(script: Mapping[str, str | None], *layers: Mapping[str, str | None]) -> Options:
    """The script's options with those of the layers, later ones in the place of earlier ones."""
    options = dict(script)
    for layer in layers:
        for name, value in layer.items():
            put(options, name, value, tuple(script))
    return options


def asks_for_gpus(value: str | None) -> bool:
    """Whether a list of resources (``gres``, ``tres-per-…``) has GPUs in it."""
    return any(_GPU_PART.fullmatch(part) for part in (value or "").split(","))


def gpus_per_node(options: Options) -> int:
    """GPUs of each node, in whatever way they are asked for; 0 where they are not.

    Raises:
        ConfigError: a count that is none, or that is not known before Slurm has placed the job.
    """
    name = next((name for name in GPU_OPTIONS if name in options and _asks(options, name)), None)
    if name is None:
        return 0
    total = sum(_gpu_counts(name, options[name] or ""))
    if name in ("gpus-per-task", "tres-per-task"):
        return total * tasks_per_node(options)
    if name == "gpus-per-socket":
        if "sockets-per-node" not in options:
            raise ConfigError(f"--{name}={options[name]}: give --sockets-per-node too, or ask with --gpus-per-node")
        return total * number("sockets-per-node", options["sockets-per-node"], 1)
    if name == "gpus":
        nodes = number("nodes", options.get("nodes") or "1", 1)
        if total % nodes:
            raise ConfigError(f"--gpus={options[name]}: cannot be divided by {nodes} nodes; ask with --gpus-per-node")
        return total // nodes
    return total


def _asks(options: Options, name: str) -> bool:
    return name not in LISTS or asks_for_gpus(options[name])


def _gpu_counts(name: str, value: str) -> Iterator[int]:
    """Counts in ``8``, ``a100:8``, ``a100:4,h100:4``, ``gpu:a100:2(S:0)``, ``gres/gpu=2``; a kind alone is one."""
    parts = [part for part in value.split(",") if name not in LISTS or _GPU_PART.fullmatch(part)]
    for part in parts:
        count = re.split("[:=]", part.partition("(")[0])[-1]
        if count and re.fullmatch(r"[A-Za-z][\w.-]*", count):
            yield 1
        else:
            yield number(name, count, 0)


def cpus_per_node(options: Options) -> int:
    """Logical CPUs of each node."""
    if "cpus-per-gpu" in options:
        return number("cpus-per-gpu", options["cpus-per-gpu"], 1) * gpus_per_node(options)
    return number("cpus-per-task", options.get("cpus-per-task") or "1", 1) * tasks_per_node(options)


def memory_per_node(options: Options) -> float | None:
    """Bytes of each node's memory that are asked for; None for all of it, and where nothing is said of it.

    Raises:
        ConfigError: no size of Slurm's.
    """
    name = next((name for name in RESOURCES[2] if name in options), None)
    if name is None:
        return None
    value = options[name] or ""
    found = re.fullmatch(r"([0-9]{1,12})([KMGT]?)B?", value.upper())
    if found is None:
        raise ConfigError(f"--{name}={value}: is not a size in Slurm's format; write e.g. 500G")
    size = float(found[1]) * 1024.0 ** (1 + "KMGT".index(found[2] or "M"))
    if not size:
        return None
    times = {"mem": 1, "mem-per-cpu": cpus_per_node(options), "mem-per-gpu": gpus_per_node(options)}
    return size * times[name]


def tasks_per_node(options: Options) -> int:
    """Tasks of each node."""
    return number("ntasks-per-node", options.get("ntasks-per-node") or "1", 1)


def lead_of(signal: str | None) -> int:
    """Seconds before the limit at which Slurm signals the job; 60 where ``--signal`` does not say it, 0 without one.

    Raises:
        ConfigError: no number of seconds behind the ``@``.
    """
    if not signal:
        return 0
    _, at, seconds = signal.partition("@")
    if at and not re.fullmatch("[0-9]{1,5}", seconds):
        raise ConfigError(f"--signal={signal}: {seconds!r} is not a number of seconds; write it as B:USR1@900")
    return int(seconds) if at else 60


def number(name: str, value: str | None, least: int) -> int:
    """A count.

    Args:
        name: The option, without ``--``, or the variable that it comes from.

    Raises:
        ConfigError: no whole number, or less than ``least``.
    """
    shown = f"{name if name.isupper() else f'--{name}'}={value or ''}"
    if value is None or not re.fullmatch(r"[+-]?[0-9]{1,9}", value):
        raise ConfigError(f"{shown}: give one number, so that the layout can be checked")
    if int(value) < least:
        raise ConfigError(f"{shown}: give {least} or more")
    return int(value)


def directive(name: str, value: str | None) -> str:
    """A #SBATCH line. sbatch splits it at blanks, ends it at ``#``, and knows quotes and backslashes."""
    if value is None:
        return f"#SBATCH --{name}"
    if re.search(r"""[\s"'\\#]""", value):
        escaped = re.sub(r'(["\\])', r"\\\1", value)
        return f'#SBATCH --{name}="{escaped}"'
    return f"#SBATCH --{name}={value}"
