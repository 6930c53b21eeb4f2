"""What a job is asked for: the #SBATCH lines of a launcher, the site's file, the command line. No torch."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from medserl.errors import ConfigError

SCRIPTS = ("train_multinode", "train_singlenode", "evaluate", "preflight")
DEFAULT_CONFIGS = {"train_multinode": "qwen3_4b_multinode", "train_singlenode": "qwen3_4b_1node"}
SITE_OPTIONS = {"MEDSERL_ACCOUNT": "account", "MEDSERL_PARTITION": "partition", "MEDSERL_QOS": "qos"}
RUN_VARIABLES = ("MEDSERL_CONFIG", "MEDSERL_RUN_DIR")
_DIRECTIVE = re.compile(r"^#SBATCH\s+--([a-z-]+)(?:=(.*\S))?\s*$")
_OPTION = re.compile(r"--([a-z-]+)(?:=(.*))?", re.DOTALL)
_TIMES = (
    (re.compile(r"^(\d+)$"), (60,)),
    (re.compile(r"^(\d+):(\d+)$"), (60, 1)),
    (re.compile(r"^(\d+):(\d+):(\d+)$"), (3600, 60, 1)),
    (re.compile(r"^(\d+)-(\d+)$"), (86400, 3600)),
    (re.compile(r"^(\d+)-(\d+):(\d+)$"), (86400, 3600, 60)),
    (re.compile(r"^(\d+)-(\d+):(\d+):(\d+)$"), (86400, 3600, 60, 1)),
)


@dataclass(frozen=True)
class JobRequest:
    """A launcher with everything that sbatch is told about it."""

    script: Path
    options: Mapping[str, str | None]
    """sbatch's long options by name, without ``--``; None for one without a value."""
    given: tuple[str, ...]
    """Those that do not stand in the script, as words for sbatch's command line."""
    settings: Mapping[str, str]
    """Settings of the site and of the environment, ``MEDSERL_…``."""
    arguments: tuple[str, ...]
    """Arguments of ``medserl train`` or ``medserl evaluate``."""

    @property
    def name(self) -> str:
        """The launcher's name."""
        return self.script.stem

    @property
    def nodes(self) -> int:
        """Nodes of the job."""
        return _count("--nodes", self.options.get("nodes") or "1")

    @property
    def gpus_per_node(self) -> int:
        """Worker processes on each node: what the settings say, else the GPUs that Slurm is asked for."""
        value = self.settings.get("MEDSERL_GPUS_PER_NODE") or (self.options.get("gpus-per-node") or "0")
        return _count("--gpus-per-node", value.rsplit(":", 1)[-1])

    @property
    def cpus_per_node(self) -> int:
        """Logical CPUs that Ray is given on each node."""
        tasks = _count("--ntasks-per-node", self.options.get("ntasks-per-node") or "1")
        asked = _count("--cpus-per-task", self.options.get("cpus-per-task") or "1") * tasks
        return int(self.settings.get("MEDSERL_RAY_CPUS") or asked)

    @property
    def time_limit(self) -> int | None:
        """Seconds; None without a limit."""
        return seconds_of(self.options.get("time"))

    @property
    def lead(self) -> int:
        """Seconds before the limit at which Slurm signals the job."""
        signal = self.options.get("signal") or ""
        return int(signal.rpartition("@")[2]) if "@" in signal else 0


def seconds_of(time: str | None) -> int | None:
    """Seconds of a time as Slurm writes it (``man sbatch``, --time); None for none or UNLIMITED.

    Raises ConfigError for anything else.
    """
    if time is None or time.upper() in ("UNLIMITED", "INFINITE", "0"):
        return None
    for pattern, units in _TIMES:
        if found := pattern.match(time):
            return sum(int(part) * unit for part, unit in zip(found.groups(), units, strict=True))
    raise ConfigError(f"--time {time}: is no time of Slurm's; write e.g. 90 (minutes), 12:00:00 or 2-00:00:00")


def launchers_dir() -> Path:
    """The folder of the launchers: MEDSERL_LAUNCHER, inside an installed package, or in a checkout."""
    package = Path(__file__).resolve().parent.parent
    candidates = [package / "launchers", package.parent / "slurm"]
    if given := os.environ.get("MEDSERL_LAUNCHER"):
        candidates.insert(0, Path(given).absolute())
    for candidate in candidates:
        if (candidate / "lib.sh").is_file():
            return candidate
    raise ConfigError(f"no launchers (lib.sh) in {' or '.join(map(str, candidates))}; set MEDSERL_LAUNCHER")


def site_settings(launchers: Path) -> dict[str, str]:
    """The site's settings as the launchers see them, by their own library: environment before file before default.

    Raises:
        ConfigError: the library refuses the file, in its own sentence.
    """
    read = 'source "$1/lib.sh"; load_site; for name in "${SITE_SETTINGS[@]}"; do '
    read += '[[ -z ${!name:-} ]] || printf "%s=%s\\0" "$name" "${!name}"; done'
    done = subprocess.run(["bash", "-c", read, "bash", launchers], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"{launchers}/lib.sh failed"]
        raise ConfigError(lines[-1].partition("launcher: ")[2] or lines[-1])
    return dict(entry.split("=", 1) for entry in done.stdout.split("\0") if entry)


def directives(script: Path) -> dict[str, str | None]:
    """The #SBATCH options of a script, up to its first command, as sbatch reads them."""
    found: dict[str, str | None] = {}
    for line in script.read_text(encoding="utf-8").splitlines():
        if match := _DIRECTIVE.match(line):
            found[match[1]] = match[2]
        elif line.strip() and not line.startswith("#"):
            break
    return found


def make_request(
    name: str, chosen: Mapping[str, str | None], extra: Sequence[str], arguments: Sequence[str]
) -> JobRequest:
    """Put a request together; later ones win: script, site, ``extra`` options, ``chosen`` options.

    Args:
        name: One of ``SCRIPTS``.
        chosen: sbatch options by long name; None where not given.
        extra: sbatch options as words, ``--name=value`` or ``--name``.
        arguments: For ``medserl train`` or ``medserl evaluate``.
    """
    launchers = launchers_dir()
    script = launchers / f"{name}.sh"
    settings = site_settings(launchers)
    given: dict[str, str | None] = {
        option: settings[variable] for variable, option in SITE_OPTIONS.items() if variable in settings
    }
    given |= _options_of(shlex.split(settings.get("MEDSERL_SBATCH_OPTIONS", "")))
    given |= _options_of(extra)
    given |= {option: value for option, value in chosen.items() if value is not None}
    return JobRequest(
        script=script,
        options={**directives(script), **given},
        given=tuple(f"--{key}" if value is None else f"--{key}={value}" for key, value in given.items()),
        settings=settings,
        arguments=tuple(arguments),
    )


def _options_of(words: Sequence[str]) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for word in words:
        match = _OPTION.fullmatch(word)
        if match is None:
            raise ConfigError(f"sbatch option {word!r}: write it as --name=value")
        found[match[1]] = match[2]
    return found


def resolved_script(request: JobRequest, notes: Sequence[str]) -> str:
    """The script as it will run: options and settings resolved, arguments filled in; sbatch takes it as it is.

    Args:
        request: The job.
        notes: Lines to put on top as comments.
    """
    text = request.script.read_text(encoding="utf-8").splitlines()
    body = [line for line in text[1:] if not _DIRECTIVE.match(line)]
    head = [text[0]]
    head += [
        f"#SBATCH --{key}" if value is None else f"#SBATCH --{key}={_quoted(value)}"
        for key, value in request.options.items()
    ]
    head += ["#", *(f"# {line}".rstrip() for line in notes), "#"]
    variables = {name: os.environ[name] for name in RUN_VARIABLES if os.environ.get(name)}
    variables |= {**request.settings, "MEDSERL_LAUNCHER": str(request.script.parent)}
    exports = [f"export {name}={shlex.quote(value)}" for name, value in sorted(variables.items())]
    if request.arguments:
        exports.append(f"set -- {shlex.join(request.arguments)}")
    at = body.index("set -euo pipefail") + 1
    return "\n".join([*head, *body[:at], "", *exports, *body[at:]]) + "\n"


def _quoted(value: str) -> str:
    """sbatch splits #SBATCH lines at spaces and knows double quotes."""
    return f'"{value}"' if " " in value else value


def command_line(request: JobRequest) -> list[str]:
    """The sbatch command that submits the unmodified script."""
    return ["sbatch", "--parsable", *request.given, str(request.script), *request.arguments]


def submit(request: JobRequest) -> str:
    """Submit; returns the job's number.

    Raises:
        ConfigError: sbatch is not here, or refuses the job.
    """
    environment = {**os.environ, "MEDSERL_LAUNCHER": str(request.script.parent)}
    try:
        done = subprocess.run(command_line(request), env=environment, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise ConfigError("sbatch is not on PATH; run this on a login node of the cluster") from None
    if done.returncode != 0:
        raise ConfigError(f"sbatch refused the job: {' '.join(done.stderr.split())}")
    return done.stdout.strip().split(";")[0]


def _count(name: str, value: str) -> int:
    try:
        return int(value)
    except ValueError:
        raise ConfigError(f"{name}={value}: give one number, so that the layout can be checked") from None
