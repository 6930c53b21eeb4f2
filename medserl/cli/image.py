"""``medserl image``: the Apptainer image of MedSeRL, built, run and looked at, through Apptainer or Singularity.

Building and inspecting go through spython's client; what runs in an image replaces this process, so that its exit code
and every signal are its own. docs/containers.md has the whole picture.
"""

from __future__ import annotations

import argparse
import glob
import json
import os
import shlex
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from medserl.errors import EXIT_OK, ConfigError, UserError

RUNTIMES = ("apptainer", "singularity")
SOURCES = ("docker-daemon", "docker-archive", "oci-archive", "docker")
# What of this shell's environment goes along into a container; the rest could break or betray (PYTHONPATH, tokens).
CARRIED = ("MEDSERL_", "NCCL_", "SLURM_", "CUDA_VISIBLE_DEVICES", "ONEDNN_MAX_CPU_ISA", "TERM")
# A third of the time and 8 % more bytes than the default gzip on an image of 7 GB.
SQUASHFS = "-comp zstd -Xcompression-level 1"
# What Apptainer and Singularity say once they have copied a layout: the 7 GB of the first are wanted no more.
COPIED = "Extracting OCI image"


class ImageError(UserError):
    """An image that cannot be built or run; the sentence says what is missing."""


def add_image(commands: argparse._SubParsersAction) -> None:
    """The options of ``medserl image``."""
    parser = commands.add_parser(
        "image",
        help="build, run and inspect the Apptainer image",
        description="Build the Apptainer image (SIF) from the Docker image, run it, and inspect it.",
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    build = actions.add_parser("build", help="make a SIF from a Docker image")
    build.set_defaults(run=build_image)
    build.add_argument("sif", type=Path, help="the file to write")
    build.add_argument(
        "--from",
        dest="source",
        default="docker-daemon:medserl:cpu",
        metavar="SOURCE:NAME",
        help=f"where the Docker image is: {', '.join(SOURCES)} (default: docker-daemon:medserl:cpu)",
    )
    build.add_argument("--definition", type=Path, metavar="FILE", help="apptainer.def (default: the checkout's)")
    build.add_argument("--force", action="store_true", help="replace the file if it exists")
    build.add_argument(
        "--no-test", action="store_true", help="leave out the definition's test, which needs capabilities"
    )
    for name, text, takes_arguments in (
        ("run", "run `medserl ARGUMENTS` in the image, or without arguments its self-test", True),
        ("shell", "open a shell in the image", False),
        ("test", "run the image's own short test", False),
    ):
        action = actions.add_parser(name, help=text)
        action.set_defaults(run=enter_image)
        _add_container_options(action)
        action.add_argument("sif", type=Path, help="the image")
        if takes_arguments:
            action.add_argument("arguments", nargs=argparse.REMAINDER, help="arguments of medserl in the image")
    inspect = actions.add_parser("inspect", help="show labels, environment and entry point")
    inspect.set_defaults(run=inspect_image)
    inspect.add_argument("sif", type=Path, help="the image")
    inspect.add_argument("--json", action="store_true", help="print everything that the runtime knows, as JSON")


def _add_container_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--bind", action="append", default=[], metavar="HOST[:IMAGE]", help="a folder to mount inside")
    parser.add_argument(
        "--env", action="append", default=[], metavar="NAME=VALUE", help="an environment variable to set inside"
    )
    parser.add_argument(
        "--userns", action="store_true", help="run in a user namespace, if the runtime has no setuid part"
    )
    parser.add_argument("--print", action="store_true", dest="only_print", help="print the command without running it")


# ------------------------------------------------------------------------------------------------ the runtime


def find_runtime(environ: Mapping[str, str] = os.environ) -> str:
    """Path of ``apptainer``, or else of ``singularity``.

    Raises:
        ImageError: neither is on PATH.
    """
    for name in RUNTIMES:
        found = shutil.which(name, path=environ.get("PATH", os.defpath))
        if found:
            return found
    raise ImageError(
        "neither apptainer nor singularity is on PATH; load your site's module, or install Apptainer "
        "(https://apptainer.org), then run this again"
    )


def _spython() -> ModuleType:
    try:
        import spython.main
    except ImportError:
        raise ImageError(
            "spython is not installed; run `python3 bootstrap.py setup --dev` or `pip install spython`"
        ) from None
    module: ModuleType = spython.main
    return module


@contextmanager
def runtime_on_path() -> Iterator[None]:
    """spython calls whatever ``singularity`` is on PATH; within this it is the runtime that was found."""
    runtime = find_runtime()
    before = os.environ.get("PATH", os.defpath)
    with tempfile.TemporaryDirectory(prefix="medserl-image-") as folder:
        (Path(folder) / "singularity").symlink_to(runtime)
        os.environ["PATH"] = os.pathsep.join([folder, before])
        try:
            yield
        finally:
            os.environ["PATH"] = before


def _existing(sif: Path) -> str:
    if not sif.exists():
        raise ImageError(f"{sif}: no such image; make one with `medserl image build {sif}`")
    return str(sif)


def _no_overrides(overrides: Sequence[str]) -> None:
    if overrides:
        raise ConfigError(f"{overrides[0]}: medserl image takes overrides only after `run SIF train`")


# ------------------------------------------------------------------------------------------------ build, inspect


def definition_file(asked: Path | None) -> Path:
    """apptainer.def: the given one, or that of the checkout this package is in."""
    path = asked or Path(__file__).resolve().parent.parent.parent / "apptainer.def"
    if not path.is_file():
        raise ImageError(f"{path}: no such file; give the checkout's with --definition apptainer.def")
    return path


def split_source(source: str) -> tuple[str, str]:
    """``docker-daemon:medserl:cpu`` as ("docker-daemon", "medserl:cpu"); an archive must be there.

    Raises:
        ImageError: an unknown kind, no name, or an archive that is missing.
    """
    kind, _, name = source.partition(":")
    name = name.removeprefix("//")
    if kind not in SOURCES or not name:
        raise ImageError(f"--from {source}: give one of {', '.join(f'{kind}:NAME' for kind in SOURCES)}")
    if kind.endswith("-archive") and not Path(name.split(":")[0]).is_file():
        raise ImageError(f"--from {source}: {name} is not a file; `docker save IMAGE -o FILE` makes one")
    return kind, name


@contextmanager
def layout_of(kind: str, name: str) -> Iterator[tuple[str, str]]:
    """The source and image that the runtime is to build from: what Docker saves, as a layout that builds faster."""
    from medserl.cli import oci_layout

    docker = shutil.which("docker")
    if kind not in ("docker-daemon", "docker-archive") or (kind == "docker-daemon" and docker is None):
        yield kind, name
        return
    with tempfile.TemporaryDirectory(prefix="medserl-image-", dir=os.environ.get("APPTAINER_TMPDIR")) as folder:
        layout = Path(folder) / "layout"
        print(f"unpacks {kind}:{name} into {layout}", flush=True)
        if docker is not None and kind == "docker-daemon":
            oci_layout.from_command([docker, "save", name], layout)
        else:
            try:
                with open(name, "rb") as stream:
                    oci_layout.from_stream(stream, layout)
            except tarfile.TarError as error:
                raise ImageError(f"{name}: is not an archive made by `docker save` ({error})") from None
        yield "oci", str(layout)  # who builds from it may remove it


def build_image(options: argparse.Namespace, overrides: list[str]) -> int:
    """Build beside, then put in place: a SIF is whole or absent."""
    _no_overrides(overrides)
    kind, name = split_source(options.source)
    definition = definition_file(options.definition)
    if options.sif.exists() and not options.force:
        raise ImageError(f"{options.sif}: exists; give --force to replace it")
    spython = _spython()
    from spython.utils import stream_command

    beside = options.sif.with_name(f".{options.sif.name}.{os.getpid()}")
    options.sif.parent.mkdir(parents=True, exist_ok=True)
    try:
        with runtime_on_path(), layout_of(kind, name) as (built_from, image):
            command = ["--build-arg", f"SOURCE={built_from}", "--build-arg", f"IMAGE={image}"]
            command += ["--mksquashfs-args", SQUASHFS, *(["--notest"] if options.no_test else [])]
            command += ["--disable-cache"] if built_from == "oci" else []  # nothing to download, nothing to keep
            # Not Client.build, whose stream leaves standard error, with all of the progress, unread.
            whole = [*spython.Client._init_command("build"), *command, str(beside), str(definition)]
            for line in stream_command(whole, output_type="both"):
                print(line, end="", flush=True)
                if built_from == "oci" and COPIED in line:
                    shutil.rmtree(image, ignore_errors=True)
        os.replace(beside, options.sif)
    except subprocess.CalledProcessError as error:
        raise ImageError(
            f"{find_runtime()} build ended with exit code {error.returncode}; the reason is above"
        ) from None
    finally:
        beside.unlink(missing_ok=True)
    print(f"{options.sif}: {options.sif.stat().st_size / 1e9:.1f} GB from {kind}:{name}")
    return EXIT_OK


def inspect_image(options: argparse.Namespace, overrides: list[str]) -> int:
    """Labels, environment and run script of an image."""
    _no_overrides(overrides)
    sif = _existing(options.sif)
    spython = _spython()
    with runtime_on_path():
        try:
            answer: dict[str, Any] = spython.Client.inspect(sif)
        except (LookupError, ValueError, TypeError):  # what the runtime printed is nothing that spython knows
            answer = {}
    if "attributes" not in answer:
        said = " ".join(str(line).strip() for line in answer.get("message", []))
        raise ImageError(f"{sif}: {find_runtime()} cannot read it ({said or 'no reason given'})")
    attributes = answer["attributes"]
    if options.json:
        print(json.dumps(attributes, indent=2, sort_keys=True))
        return EXIT_OK
    for name, value in sorted(attributes["labels"].items()):
        print(f"{name}: {value}")
    for part in ("environment", "runscript"):
        print(f"\n{part}\n{_text(attributes.get(part))}")
    return EXIT_OK


def _text(part: Any) -> str:
    """A part of ``inspect --json``: text, or text by the file that holds it."""
    return "\n".join(str(value) for value in part.values()) if isinstance(part, dict) else str(part or "").strip()


# ------------------------------------------------------------------------------------------------ run, shell, test


def container_command(
    runtime: str, options: argparse.Namespace, environ: Mapping[str, str] = os.environ, gpus: bool | None = None
) -> list[str]:
    """The command that enters an image as ``options`` say.

    The host's environment stays outside but for ``CARRIED``; NVIDIA's driver comes along where it is.
    """
    words = [runtime, options.action]
    if options.userns:
        words.append("--userns")
    words.append("--cleanenv")
    if bool(glob.glob("/dev/nvidia[0-9]*")) if gpus is None else gpus:
        words.append("--nv")
    for bind in options.bind:
        words += ["--bind", bind]
    carried = [f"{name}={value}" for name, value in sorted(environ.items()) if name.startswith(CARRIED)]
    for variable in (*carried, *options.env):
        words += ["--env", variable]
    return [*words, _existing(options.sif), *getattr(options, "arguments", [])]


def enter_image(options: argparse.Namespace, overrides: list[str]) -> int:
    """Become the container."""
    _no_overrides(overrides)
    command = container_command(find_runtime(), options)
    if options.only_print:
        print(shlex.join(command))
        return EXIT_OK
    os.execv(command[0], command)
