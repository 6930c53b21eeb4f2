"""The set-up program: which Python it takes, when it does work, and that what it starts ends as itself."""

import argparse
import ast
import json
import os
import re
import shlex
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest


def program(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def options(bootstrap: ModuleType, *words: object) -> argparse.Namespace:
    parsed: argparse.Namespace = bootstrap.make_parser().parse_args([str(word) for word in words])
    return parsed


# ------------------------------------------------------------------------------------------------- the face


def test_runs_on_python_3_8(root: Path) -> None:
    ast.parse((root / "bootstrap.py").read_text(), feature_version=(3, 8))


def test_readme_commands_are_understood(root: Path, bootstrap: ModuleType) -> None:
    text = (root / "README.md").read_text().replace("\\\n", " ")
    commands = re.findall(r"^python3 bootstrap\.py.*$", text, re.MULTILINE)
    parsed = [options(bootstrap, *shlex.split(line, comments=True)[2:]) for line in commands]
    assert {"train", "test"} <= {each.command for each in parsed}
    help_text = subprocess.run(
        [sys.executable, root / "bootstrap.py", "--help"], capture_output=True, text=True, check=True
    ).stdout
    assert all(f"bootstrap.py {each.command}" in help_text for each in parsed)


@pytest.mark.parametrize("words", [[], ["fly"], ["setup", "--fast"], ["--device", "tpu", "train"]])
def test_wrong_usage_ends_with_2(root: Path, words: list[str]) -> None:
    done = subprocess.run([sys.executable, root / "bootstrap.py", *words], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.strip()


def test_arguments_after_the_command_are_passed_on_as_they_are(bootstrap: ModuleType) -> None:
    parsed = options(bootstrap, "--device", "cpu", "train", "--device", "x", "--help", "a=b")
    assert parsed.device == "cpu"
    assert parsed.arguments == ["--device", "x", "--help", "a=b"]


# ------------------------------------------------------------------------------------------- finding Python


def test_find_python_passes_over_what_is_broken_or_of_another_version(bootstrap: ModuleType, tmp_path: Path) -> None:
    shim = program(tmp_path / "shim" / "python3.12", "echo 'command not found' >&2; exit 127")
    other = program(tmp_path / "other" / "python3.12", "echo cpython 3 11")
    pypy = program(tmp_path / "pypy" / "python3.12", "echo pypy 3 12")
    right = program(tmp_path / "right" / "python3.12", "echo cpython 3 12")
    candidates = [str(tmp_path / "missing"), str(shim), str(other), str(pypy), str(right)]
    assert bootstrap.find_python(candidates) == os.path.realpath(right)
    assert bootstrap.find_python(candidates[:-1]) is None


def test_find_python_leaves_the_environment_that_may_be_deleted(bootstrap: ModuleType, tmp_path: Path) -> None:
    real = program(tmp_path / "usr" / "python3.12", "echo cpython 3 12")
    (tmp_path / "venv").mkdir()
    (tmp_path / "venv" / "python").symlink_to(real)
    assert bootstrap.find_python([str(tmp_path / "venv" / "python")]) == os.path.realpath(real)


def test_candidates_include_pyenv_newest_first(bootstrap: ModuleType, tmp_path: Path) -> None:
    for version in ("3.12.9", "3.12.10", "3.11.7", "3.12-dev"):
        program(tmp_path / "pyenv" / "versions" / version / "bin" / "python3.12", "true")
    on_path = program(tmp_path / "bin" / "python3.12", "true")
    environ = {"PYENV_ROOT": str(tmp_path / "pyenv"), "PATH": str(tmp_path / "bin")}
    found = list(bootstrap.python_candidates(environ, tmp_path))
    assert found[:2] == [sys.executable, str(on_path)]
    versions = [Path(path).parent.parent.name for path in found if "pyenv/versions" in path]
    assert versions[:2] == ["3.12.10", "3.12.9"]
    assert "3.11.7" not in versions


def test_asked_for_python_must_work(bootstrap: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(bootstrap.SetupError, match=r"not a working CPython 3\.12"):
        bootstrap.get_python(tmp_path / "uv", str(tmp_path / "nothing"), tmp_path)


# ------------------------------------------------------------------------------------------------ the machine


@pytest.mark.parametrize(("system", "machine"), [("Darwin", "arm64"), ("Linux", "aarch64"), ("Windows", "AMD64")])
def test_other_platforms_are_refused_in_one_sentence(bootstrap: ModuleType, system: str, machine: str) -> None:
    with pytest.raises(bootstrap.SetupError, match=f"{system} on {machine}"):
        bootstrap.check_platform(system, machine)


def test_full_disk_is_told_before_anything_is_downloaded(
    bootstrap: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = bootstrap.shutil.disk_usage(tmp_path)._replace(free=3 * bootstrap.GIB)
    monkeypatch.setattr(bootstrap.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(bootstrap.SetupError, match=r"8 GiB .* 3\.0 GiB"):
        bootstrap.check_disk(tmp_path, "cpu")


def test_missing_system_package_is_named_where_it_cannot_be_installed(
    bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bootstrap.os, "geteuid", lambda: 1000)
    monkeypatch.setattr(bootstrap, "is_loadable", lambda _: False)
    with pytest.raises(bootstrap.SetupError, match="apt-get install libnuma1"):
        bootstrap.check_system("cpu")


def test_device_follows_the_machine_unless_asked(bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "has_nvidia_gpu", lambda: True)
    assert bootstrap.choose_device("auto") == "cuda"
    assert bootstrap.choose_device("cpu") == "cpu"
    monkeypatch.setattr(bootstrap, "has_nvidia_gpu", lambda: False)
    assert bootstrap.choose_device("auto") == "cpu"


def test_hidden_gpus_are_no_gpus(bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "answer", lambda _: "GPU 0: something")
    for hidden in ("", " ", "-1", "NoDevFiles", "none", "GPU"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
        assert not bootstrap.has_nvidia_gpu(), hidden
    for shown in ("0", "0,1", "1,-1", "GPU-8932f937", "MIG-8932f937"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", shown)
        assert bootstrap.has_nvidia_gpu(), shown
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert bootstrap.has_nvidia_gpu()


# ---------------------------------------------------------------------------------------------------- stamps

FULL = {"packages": "cpu1", "project": "p1", "dev": "d1"}


@pytest.mark.parametrize(
    ("have", "want", "stale"),
    [
        ({}, FULL, ["packages", "project", "dev"]),
        ({}, {**FULL, "dev": ""}, ["packages", "project"]),
        (FULL, FULL, []),
        (FULL, {**FULL, "dev": ""}, []),
        ({**FULL, "dev": ""}, FULL, ["dev"]),
        ({**FULL, "project": "p0"}, FULL, ["project"]),
        ({**FULL, "packages": "cuda1"}, FULL, ["packages", "project", "dev"]),
    ],
)
def test_only_stale_layers_are_installed(
    bootstrap: ModuleType, have: dict[str, str], want: dict[str, str], stale: list[str]
) -> None:
    assert bootstrap.stale_layers(have, want) == stale


def test_digest_sees_content_names_and_absence(bootstrap: ModuleType, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    seen = {bootstrap.digest([one])}
    for file, text in ((one, ""), (one, "a"), (one, "b"), (two, "b")):
        file.write_text(text)
        seen.add(bootstrap.digest([file]))
    assert len(seen) == 5
    assert bootstrap.digest([one]) == bootstrap.digest([one])


@pytest.mark.parametrize("text", ["", "{", "[]", "null"])
def test_unreadable_stamp_counts_as_none(bootstrap: ModuleType, tmp_path: Path, text: str) -> None:
    (tmp_path / "stamp").write_text(text)
    assert bootstrap.read_stamp(tmp_path / "stamp") == {}
    assert bootstrap.read_stamp(tmp_path / "missing") == {}


def test_stamp_survives_writing(bootstrap: ModuleType, tmp_path: Path) -> None:
    bootstrap.write_stamp(tmp_path / "stamp.json", FULL)
    assert bootstrap.read_stamp(tmp_path / "stamp.json") == FULL
    assert [path.name for path in tmp_path.iterdir()] == ["stamp.json"]


def test_pins_of_the_other_device_make_another_stamp(bootstrap: ModuleType) -> None:
    assert bootstrap.wanted_stamp("cpu", True, True) == bootstrap.wanted_stamp("cpu", True, True)
    stamps = [
        bootstrap.wanted_stamp(device, dev, editable)
        for device in ("cpu", "cuda")
        for dev in (True, False)
        for editable in (True, False)
    ]
    assert len({json.dumps(stamp) for stamp in stamps}) == 8


# ------------------------------------------------------------------------------------------------ installing


def test_split_takes_a_package_with_its_hashes(root: Path, bootstrap: ModuleType) -> None:
    text = (root / "requirements" / "gpu.txt").read_text()
    rest, apart = bootstrap.split_requirements(text, bootstrap.BUILT_AGAINST_TORCH)
    assert sorted((rest + apart).splitlines()) == sorted(text.splitlines())
    starts = [line for line in apart.splitlines() if line[:1].isalnum()]
    assert [line.split("==")[0] for line in starts] == ["transformer-engine-torch"]
    assert "--hash=sha256:" in apart
    assert not re.search(r"^transformer-engine-torch==", rest, re.MULTILINE)


def test_split_leaves_a_file_without_such_packages_alone(root: Path, bootstrap: ModuleType) -> None:
    text = (root / "requirements" / "cpu.txt").read_text()
    assert bootstrap.split_requirements(text, bootstrap.BUILT_AGAINST_TORCH) == (text, "")


def test_gpu_build_sees_the_pinned_cuda_only(bootstrap: ModuleType, tmp_path: Path) -> None:
    for name in ("cu13", "cudnn", "nccl"):
        (tmp_path / "nvidia" / name / "include").mkdir(parents=True)
    (tmp_path / "nvidia" / "nvtx").mkdir()
    variables = bootstrap.cuda_build_variables(tmp_path)
    assert variables["CUDA_HOME"] == f"{tmp_path}/nvidia/cu13"
    assert variables["CPATH"].split(":") == [f"{tmp_path}/nvidia/{name}/include" for name in ("cu13", "cudnn", "nccl")]
    assert variables["NVTE_PYTORCH_FORCE_BUILD"] == "TRUE"


@pytest.fixture
def ready(bootstrap: ModuleType, tmp_path: Path) -> Path:
    """An environment that looks set up; its programs print their arguments and end with 7."""
    venv = tmp_path / "venv"
    for name in ("python", "medserl"):
        program(venv / "bin" / name, f'echo {name} "$@" user-site=$PYTHONNOUSERSITE; exit 7')
    bootstrap.write_stamp(venv / bootstrap.STAMP, bootstrap.wanted_stamp("cpu", True, True))
    return venv


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("train", r"medserl train --max-rounds 1 user-site=1"),
        ("run", r"medserl --max-rounds 1 user-site=1"),
        ("test", r"python \S+check\.py --max-rounds 1"),
    ],
)
def test_second_call_starts_at_once_and_passes_the_exit_code_on(
    root: Path, ready: Path, command: str, expected: str
) -> None:
    words = ["--device", "cpu", "--venv", ready, command, "--max-rounds", "1"]
    done = subprocess.run([sys.executable, root / "bootstrap.py", *words], capture_output=True, text=True)
    assert done.returncode == 7
    assert re.fullmatch(f"{expected}.*", done.stdout.strip())


def test_failed_set_up_leaves_no_stamp(
    bootstrap: ModuleType, ready: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise bootstrap.SetupError("the registry is on fire")

    bootstrap.write_stamp(ready / bootstrap.STAMP, {"packages": "old"})
    monkeypatch.setattr(bootstrap, "get_uv", lambda _: ready / "uv")
    monkeypatch.setattr(bootstrap, "check_system", lambda _: None)
    monkeypatch.setattr(bootstrap, "get_python", lambda *_: sys.executable)
    monkeypatch.setattr(bootstrap, "install_packages", fail)
    assert bootstrap.main(["--device", "cpu", "--venv", str(ready), "setup"]) == 1
    assert "the registry is on fire" in capsys.readouterr().err
    assert not (ready / bootstrap.STAMP).exists()


def test_train_after_test_keeps_the_test_tools(
    bootstrap: ModuleType, ready: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = bootstrap.read_stamp(ready / bootstrap.STAMP)
    bootstrap.write_stamp(ready / bootstrap.STAMP, {**full, "project": "old"})
    monkeypatch.setattr(bootstrap, "get_uv", lambda _: ready / "uv")
    installed: list[object] = []
    monkeypatch.setattr(bootstrap, "install_project", lambda *_: installed.append("project"))
    assert bootstrap.main(["--device", "cpu", "--venv", str(ready), "setup"]) == 0
    assert installed == ["project"]
    assert bootstrap.read_stamp(ready / bootstrap.STAMP) == full


def test_packages_alone_are_completed_later(
    bootstrap: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    venv = tmp_path / "venv"
    monkeypatch.setattr(bootstrap, "get_uv", lambda _: tmp_path / "uv")
    monkeypatch.setattr(bootstrap, "check_system", lambda _: None)
    monkeypatch.setattr(bootstrap, "check_disk", lambda *_: None)
    monkeypatch.setattr(bootstrap, "get_python", lambda *_: sys.executable)
    installed: list[str] = []

    def packages(*_: object) -> None:
        program(venv / "bin" / "python", "true")
        installed.append("packages")

    monkeypatch.setattr(bootstrap, "install_packages", packages)
    monkeypatch.setattr(bootstrap, "install_project", lambda *_: installed.append("project"))
    for words in (["--packages"], ["--packages"], [], []):
        assert bootstrap.main(["--device", "cpu", "--venv", str(venv), "setup", *words]) == 0
    assert installed == ["packages", "project"]


def test_second_set_up_waits_for_the_first(root: Path, bootstrap: ModuleType, tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    code = (
        f"import sys; sys.path.insert(0, {str(root)!r}); import bootstrap, pathlib\n"
        f"with bootstrap.only_one_setup(pathlib.Path({str(lock)!r})): print('mine', flush=True)"
    )
    with bootstrap.only_one_setup(lock):
        other = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        assert other.stdout is not None
        assert "waiting" in other.stdout.readline()
        assert other.poll() is None
    assert other.stdout.read() == "mine\n"
    assert other.wait() == 0


def test_environment_of_what_runs(bootstrap: ModuleType, tmp_path: Path) -> None:
    environ = {"PATH": "/bin", "PYTHONPATH": "/elsewhere", "PYTHONHOME": "/nowhere", "KEPT": "yes"}
    env = bootstrap.run_environment(environ, tmp_path)
    assert env["PATH"] == f"{tmp_path}/bin:/bin"
    assert env["PYTHONNOUSERSITE"] == "1"
    assert env["KEPT"] == "yes"
    assert not {"PYTHONPATH", "PYTHONHOME"} & set(env)


# --------------------------------------------------------------------------------------------- the wheel


def test_wheel_carries_configurations_and_data(root: Path, tmp_path: Path, need: Callable[[str], str]) -> None:
    import zipfile

    subprocess.run([need("hatchling"), "build", "-t", "wheel", "-d", tmp_path], cwd=root, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {f"medserl/configs/{path.name}" for path in (root / "configs").glob("*.yaml")} <= names
    data = [path for path in (root / "medserl").rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")]
    assert {str(path.relative_to(root)) for path in data} <= names
    assert not [name for name in names if name.startswith(("tests", "tools", "benchmarks", "packaging"))]
    entry_points = zipfile.ZipFile(wheel).read(next(n for n in names if n.endswith("entry_points.txt"))).decode()
    assert "medserl = medserl.cli:main" in entry_points
    assert "medserl_cpu = medserl.cpu.vllm_plugin:register" in entry_points


def test_a_build_against_another_torch_or_with_another_compiler_is_another(
    bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CXX", raising=False)
    keys = {bootstrap.build_key(f"torch=={version}\n") for version in ("2.11.0", "2.12.0", "2.11.0")}
    assert len(keys) == 2
    monkeypatch.setenv("CXX", "/somewhere/clang++")
    assert bootstrap.build_key("torch==2.11.0\n") not in keys
