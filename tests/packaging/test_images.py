"""Dockerfile and apptainer.def say the same: environment, entry point, default command."""

import importlib.util
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from medserl import __version__
from medserl.cli.main import build_parser

TARGETS = ("cpu", "gpu")
# What a SIF, which is read-only, must have elsewhere than a Docker image: what the definition says, and what that is
# in the image.
ELSEWHERE = {"$HOME/.cache/medserl": "/cache"}


def stages(root: Path) -> dict[str, dict[str, str]]:
    """Instruction → its argument (the last one counts) of each stage, with continued lines joined."""
    text = (root / "Dockerfile").read_text()
    text = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    found: dict[str, dict[str, str]] = {}
    stage: dict[str, str] = {}
    for line in text.replace("\\\n", " ").splitlines():
        instruction, _, argument = line.strip().partition(" ")
        if instruction == "FROM":
            stage = found.setdefault(argument.split(" AS ")[1], {})
        if instruction:
            stage[instruction] = argument.strip()
    return found


def pairs(argument: str) -> dict[str, str]:
    return dict(word.split("=", 1) for word in shlex.split(argument))


def section(root: Path, name: str) -> list[str]:
    body = re.search(rf"^%{name}\n(.*?)(?=^%|\Z)", (root / "apptainer.def").read_text(), re.MULTILINE | re.DOTALL)
    assert body, f"apptainer.def has no %{name}"
    return [line.strip() for line in body[1].splitlines() if line.strip()]


def test_both_targets_are_there_and_agree(root: Path) -> None:
    found = stages(root)
    for instruction in ("ENV", "LABEL", "ARG", "USER", "WORKDIR", "HEALTHCHECK", "ENTRYPOINT", "CMD"):
        assert found["cpu"][instruction] == found["gpu"][instruction]


def test_the_images_version_is_the_packages(root: Path) -> None:
    assert re.findall(r"^ARG VERSION=(.*)$", (root / "Dockerfile").read_text(), re.MULTILINE) == [__version__] * 2
    assert pairs(stages(root)["cpu"]["LABEL"])["org.opencontainers.image.version"] == "${VERSION}"


def source_of(package: str, file: str) -> str:
    spec = importlib.util.find_spec(package)
    assert spec is not None and spec.origin is not None
    return (Path(spec.origin).parent / file).read_text()


def test_the_gpu_image_has_what_is_looked_for_at_run_time(root: Path) -> None:
    """Triton compiles a launcher with gcc (g++ brings it) against Python's headers; verl loads libnuma.so, which the
    runtime package (libnuma.so.1) lacks, to bind workers to processors. A worker's log would tell, at most."""
    installed = shlex.split(stages(root)["gpu-base"]["RUN"])
    assert {"g++", "python3.12-dev", "libnuma-dev"} <= set(installed)
    assert 'shutil.which("gcc")' in source_of("triton", "runtime/build.py")
    assert 'ctypes.CDLL("libnuma.so")' in source_of("verl", "utils/distributed.py")
    pins = (root / "requirements" / "gpu.txt").read_text()
    assert re.search(r"^nvidia-ml-py==", pins, re.MULTILINE)  # pynvml, which does the binding


@pytest.mark.parametrize("instruction", ["CMD", "HEALTHCHECK"])
def test_what_the_image_calls_by_itself_is_a_command(root: Path, instruction: str) -> None:
    words = re.search(r"\[.*\]$", stages(root)["cpu"][instruction])
    assert words
    command = [word for word in json.loads(words[0]) if word != "medserl"]
    build_parser().parse_args(command)


@pytest.mark.parametrize("target", TARGETS)
def test_every_cache_lies_below_one_folder(root: Path, target: str) -> None:
    """So that one mount holds them, on a node's own disk; models are the other mount."""
    environment = pairs(stages(root)[target]["ENV"])
    caches = {name: value for name, value in environment.items() if "CACHE" in name or "WORKSPACE" in name}
    assert {"XDG_CACHE_HOME", "TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR"} <= set(caches)
    assert all(f"{value}/".startswith("/cache/") for value in caches.values())
    assert (environment["HF_HOME"], environment["HF_HUB_OFFLINE"]) == ("/models", "1")


@pytest.mark.parametrize("target", TARGETS)
def test_image_runs_as_a_numbered_user_under_an_init(root: Path, target: str) -> None:
    stage = stages(root)[target]
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", stage["USER"])
    assert json.loads(stage["ENTRYPOINT"])[0] == "tini"
    assert pairs(stage["ENV"])["PYTHONNOUSERSITE"] == "1"


def test_apptainer_environment_is_the_images(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read by spython's recipe parser, which takes docker sources only and knows no build arguments."""
    parsers = pytest.importorskip("spython.main.parse.parsers")
    # It warns on the standard error that was there when it was imported: another test's, closed by now.
    monkeypatch.setattr(pytest.importorskip("spython.logger").bot, "errorStream", sys.stderr)
    text = (root / "apptainer.def").read_text()
    text = re.sub(r"^Bootstrap:.*$", "Bootstrap: docker", text, flags=re.MULTILINE).replace(
        "{{ IMAGE }}", "medserl:cpu"
    )
    (tmp_path / "recipe.def").write_text(text)
    (recipe,) = parsers.SingularityParser(str(tmp_path / "recipe.def")).recipe.values()
    image = stages(root)["cpu"]
    environ = dict(line.split("=", 1) for line in recipe.environ)
    for there, here in ELSEWHERE.items():
        environ = {name: value.replace(there, here) for name, value in environ.items()}
    assert environ == pairs(image["ENV"])


def test_apptainer_runscript_is_the_images_entry_point(root: Path) -> None:
    image = stages(root)["cpu"]
    *_, default, run = section(root, "runscript")
    assert default == f"if [ $# -eq 0 ]; then set -- {shlex.join(json.loads(image['CMD']))}; fi"
    assert run == f'exec {shlex.join(json.loads(image["ENTRYPOINT"]))} "$@"'


def test_apptainer_runscript_puts_caches_where_the_caller_says(root: Path) -> None:
    """Apptainer's %environment does not see the caller's variables, its %runscript does."""
    script = "\n".join([*section(root, "runscript")[:-1], "env"])
    image = pairs(stages(root)["cpu"]["ENV"])
    for given in ({}, {"MEDSERL_CACHE": "/fast/cache", "MEDSERL_TMP": "/fast/tmp"}):
        done = subprocess.run(["/bin/sh", "-c", script], env={**image, **given}, capture_output=True, text=True)
        environ = dict(line.split("=", 1) for line in done.stdout.splitlines())
        assert environ["TMPDIR"] == given.get("MEDSERL_TMP", "/tmp")
        for name, value in image.items():
            if f"{value}/".startswith("/cache/"):
                assert environ[name] == value.replace("/cache", given.get("MEDSERL_CACHE", "/cache"))


def test_dockerfile_needs_no_frontend_download_and_no_heredoc(root: Path) -> None:
    text = (root / "Dockerfile").read_text()
    assert "# syntax=" not in text
    assert "<<" not in text
    assert text.index("ARG BASE_IMAGE") < text.index("FROM")


def test_build_context_holds_what_the_set_up_reads(root: Path) -> None:
    lines = (root / ".dockerignore").read_text().split()
    assert "*" in lines
    read = {
        "bootstrap.py",
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "medserl",
        "configs",
        "requirements",
        "packaging",
        "slurm",
    }
    assert {line[1:] for line in lines if line.startswith("!")} == read
    assert all((root / name).exists() for name in read)
