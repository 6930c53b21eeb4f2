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
from medserl.slurm import sbatch_options

SCRIPTS = ("train_multinode", "train_singlenode", "evaluate", "preflight")
DEFAULT_CONFIGS = {"train_multinode": "qwen3_4b_multinode", "train_singlenode": "qwen3_4b_1node"}
SITE_OPTIONS = {"MEDSERL_ACCOUNT": "account", "MEDSERL_PARTITION": "partition", "MEDSERL_QOS": "qos"}
RUN_VARIABLES = ("MEDSERL_CONFIG", "MEDSERL_RUN_DIR")
_DIRECTIVE = re.compile(r"^#SBATCH\s+--([a-z-]+)(?:=(.*\S))?\s*$")
_SLURMS_OWN = ("SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_JWT", "SLURM_CLUSTERS", "SLURM_TIME_FORMAT")
"""Of the variables SLURM_…, those that are a user's and not a job's."""
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

    replaced: bool = False
    """Some option of the script itself does not hold: sbatch is given the resolved script in its place."""
    taken: tuple[str, ...] = ()
    """Variables that sbatch would read as options and that stand in ``options`` already."""

    @property
    def name(self) -> str:
        """The launcher's name."""
        return self.script.stem

    @property
    def asked(self) -> str:
        """What Slurm is asked for, in the words of sbatch."""
        names = ("nodes", *(name for group in sbatch_options.RESOURCES for name in group))
        asked = (name for name in (*names, "time", "account", "partition") if name in self.options)
        return " ".join(f"--{name}={self.options[name] or ''}" for name in asked)

    @property
    def nodes(self) -> int:
        """Nodes of the job."""
        return sbatch_options.number("nodes", self.options.get("nodes") or "1", 1)

    @property
    def gpus_per_node(self) -> int:
        """Worker processes on each node: what the settings say, else the GPUs that Slurm is asked for."""
        if given := self.settings.get("MEDSERL_GPUS_PER_NODE"):
            return sbatch_options.number("MEDSERL_GPUS_PER_NODE", given, 1)
        return sbatch_options.gpus_per_node(dict(self.options))

    @property
    def cpus_per_node(self) -> int:
        """Logical CPUs that Ray is given on each node."""
        if given := self.settings.get("MEDSERL_RAY_CPUS"):
            return sbatch_options.number("MEDSERL_RAY_CPUS", given, 1)
        return sbatch_options.cpus_per_node(dict(self.options))

    @property
    def memory_per_node(self) -> float | None:
        """Bytes of each node's memory; None for all that it has."""
        return sbatch_options.memory_per_node(dict(self.options))

    @property
    def time_limit(self) -> int | None:
        """Seconds; None without a limit."""
        return seconds_of(self.options.get("time"))

    @property
    def lead(self) -> int:
        """Seconds before the limit at which Slurm signals the job."""
        return sbatch_options.lead_of(self.options.get("signal"))


def seconds_of(time: str | None) -> int | None:
    """Seconds of a time as Slurm writes it (``man sbatch``, --time); None for none or UNLIMITED.

    Raises ConfigError for anything else.
    """
    if time is None or time.upper() in ("UNLIMITED", "INFINITE", "0"):
        return None
    for pattern, units in _TIMES:
        if found := pattern.match(time):
            return sum(int(part) * unit for part, unit in zip(found.groups(), units, strict=True))
    raise ConfigError(
        f"--time {time}: is not a time in Slurm's format; write e.g. 90 (minutes), 12:00:00 or 2-00:00:00"
    )


def launchers_dir() -> Path:
    """The folder of the launchers: MEDSERL_LAUNCHER, inside an installed package, or in a checkout."""
    package = Path(__file__).resolve().parent.parent
    candidates = [package / "launchers", package.parent / "slurm"]
    if given := os.environ.get("MEDSERL_LAUNCHER"):
        candidates = [Path(given).absolute()]
    for candidate in candidates:
        if (candidate / "lib.sh").is_file():
            return candidate
    places = " or ".join(map(str, candidates))
    raise ConfigError(f"no launchers (lib.sh) in {places}; set MEDSERL_LAUNCHER to the folder that holds them")


def site_settings(launchers: Path) -> dict[str, str]:
    """The site's settings as the launchers see them, by their own library: environment before file before default.

    Raises:
        ConfigError: the library refuses the file, in its own sentence.
    """
    read = 'source "$1/lib.sh"; load_site; for name in "${SITE_SETTINGS[@]}"; do '
    read += '[[ -z ${!name:-} ]] || printf "%s=%s\\0" "$name" "${!name}"; done'
    try:
        done = subprocess.run(["bash", "-c", read, "bash", launchers], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise ConfigError("bash is not on PATH; the launchers are written in it") from None
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
    own = directives(script)
    taken = {variable: option for variable, option in sbatch_options.ENVIRONMENT.items() if os.environ.get(variable)}
    layers: list[Mapping[str, str | None]] = [
        {option: os.environ[variable] for variable, option in taken.items()},
        {option: settings[variable] for variable, option in SITE_OPTIONS.items() if variable in settings},
        sbatch_options.options_of(_words_of(settings.get("MEDSERL_SBATCH_OPTIONS", ""))),
        sbatch_options.options_of(extra),
        {option: value for option, value in chosen.items() if value is not None},
    ]
    options = sbatch_options.merged(own, *layers)
    named = {option for layer in layers for option in layer}
    return JobRequest(
        script=script,
        options=options,
        given=tuple(
            f"--{key}" if value is None else f"--{key}={value}" for key, value in options.items() if key in named
        ),
        settings=settings,
        arguments=tuple(arguments),
        replaced=not own.keys() <= options.keys(),
        taken=tuple(taken),
    )


def _words_of(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise ConfigError(f"MEDSERL_SBATCH_OPTIONS={text}: {error}; close the quotes") from None


def resolved_script(request: JobRequest, notes: Sequence[str]) -> str:
    """The script as it will run: options and settings resolved, arguments filled in; sbatch takes it as it is.

    Args:
        request: The job.
        notes: Lines to put on top as comments.
    """
    text = request.script.read_text(encoding="utf-8").splitlines()
    body = [line for line in text[1:] if not _DIRECTIVE.match(line)]
    head = [text[0], *(sbatch_options.directive(key, value) for key, value in request.options.items())]
    head += ["#", *(f"# {line}".rstrip() for note in notes for line in note.splitlines() or [""]), "#"]
    variables = {name: os.environ[name] for name in RUN_VARIABLES if os.environ.get(name)}
    variables |= {**request.settings, "MEDSERL_LAUNCHER": str(request.script.parent)}
    exports = [f"export {name}={shlex.quote(value)}" for name, value in sorted(variables.items())]
    if request.arguments:
        exports.append(f"set -- {shlex.join(request.arguments)}")
    at = body.index("set -euo pipefail") + 1
    return "\n".join([*head, *body[:at], "", *exports, *body[at:]]) + "\n"


def command_line(request: JobRequest) -> list[str]:
    """The sbatch command: with the unmodified script, or without a name where it is given the resolved one."""
    script = [] if request.replaced else [str(request.script), *request.arguments]
    return ["sbatch", "--parsable", *request.given, *script]


def submit(request: JobRequest) -> str:
    """Submit; returns the job's number.

    Raises:
        ConfigError: sbatch is not here, or refuses the job.
    """
    environment = outside_of_jobs(os.environ, request.taken)
    environment["MEDSERL_LAUNCHER"] = str(request.script.parent)
    script = resolved_script(request, []) if request.replaced else ""
    try:
        done = subprocess.run(
            command_line(request), env=environment, input=script, capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        raise ConfigError("sbatch is not on PATH; run this on a login node of the cluster") from None
    if done.returncode != 0:
        raise ConfigError(f"sbatch refused the job: {' '.join(done.stderr.split())}")
    return done.stdout.strip().split(";")[0]


def outside_of_jobs(environ: Mapping[str, str], taken: Sequence[str] = ()) -> dict[str, str]:
    """The environment without what belongs to a job that this process is part of, which sbatch would hand on."""
    kept = {name: value for name, value in environ.items() if name not in taken}
    if not any(name in environ for name in ("SLURM_JOB_ID", "SLURM_JOBID")):
        return kept
    jobs = re.compile(r"(SLURM_|SLURMD_|SRUN_|PMI_|PMIX_)|(MEDSERL_DEADLINE|CUDA_VISIBLE_DEVICES|GPU_DEVICE_ORDINAL)$")
    return {name: value for name, value in kept.items() if name in _SLURMS_OWN or not jobs.match(name)}
