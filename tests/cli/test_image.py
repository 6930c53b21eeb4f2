"""`medserl image`: the commands that it makes, and what it says where something is missing."""

import argparse
import subprocess
import sys
from pathlib import Path

import pytest

from medserl.cli.image import ImageError, container_command, definition_file, find_runtime, split_source
from medserl.cli.main import build_parser, main
from tests.cli.test_oci_layout import saved

ROOT = Path(__file__).resolve().parent.parent.parent


def program(folder: Path, name: str, text: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)


def parsed(*words: object) -> argparse.Namespace:
    return build_parser().parse_args(["image", *map(str, words)])


@pytest.fixture
def sif(tmp_path: Path) -> Path:
    path = tmp_path / "m.sif"
    path.write_text("")
    return path


def test_apptainer_is_taken_before_singularity(tmp_path: Path) -> None:
    program(tmp_path, "singularity", "true")
    assert find_runtime({"PATH": str(tmp_path)}) == str(tmp_path / "singularity")
    program(tmp_path, "apptainer", "true")
    assert find_runtime({"PATH": str(tmp_path)}) == str(tmp_path / "apptainer")


def test_no_runtime_is_told_in_one_sentence(tmp_path: Path, sif: Path) -> None:
    command = [sys.executable, "-m", "medserl", "image", "run", str(sif)]
    done = subprocess.run(command, env={"PATH": str(tmp_path), "PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("medserl: error: neither apptainer nor singularity is on PATH")
    assert done.stderr.count("\n") == 1


def test_run_hands_on_arguments_and_only_named_variables(sif: Path) -> None:
    options = parsed("run", "--userns", "--bind", "/a:/b", "--env", "X=1", sif, "train", "--max-rounds", "2", "a.b=c")
    environ = {"MEDSERL_CACHE": "/fast", "NCCL_DEBUG": "INFO", "PYTHONPATH": "/evil", "HF_TOKEN": "secret"}
    assert container_command("/bin/apptainer", options, environ, gpus=True) == [
        *("/bin/apptainer", "run", "--userns", "--cleanenv", "--nv", "--bind", "/a:/b"),
        *("--env", "MEDSERL_CACHE=/fast", "--env", "NCCL_DEBUG=INFO", "--env", "X=1"),
        *(str(sif), "train", "--max-rounds", "2", "a.b=c"),
    ]


@pytest.mark.parametrize("action", ["run", "shell", "test"])
def test_an_image_that_is_not_there_is_told(action: str, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="no such image; make one with `medserl image build"):
        container_command("apptainer", parsed(action, tmp_path / "no.sif"), {}, gpus=False)


def test_the_container_takes_the_place_of_the_command(sif: Path, tmp_path: Path) -> None:
    program(tmp_path / "bin", "apptainer", 'echo "$@"; exit 138')
    env = {"PATH": str(tmp_path / "bin"), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "medserl", "image", "run", str(sif), "train", "--max-rounds", "2"]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 138
    assert done.stdout.endswith(f"{sif} train --max-rounds 2\n")


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("ftp:x", "give one of docker-daemon:NAME"),
        ("docker-daemon:", "give one of"),
        ("docker-archive:no.tar", "no.tar"),
    ],
)
def test_a_source_that_cannot_be_used_is_told(source: str, told: str) -> None:
    with pytest.raises(ImageError, match=told):
        split_source(source)


def test_sources_are_split(tmp_path: Path) -> None:
    (tmp_path / "m.tar").write_text("")
    assert split_source("docker-daemon:medserl:cpu") == ("docker-daemon", "medserl:cpu")
    assert split_source("docker://example.org/m:1") == ("docker", "example.org/m:1")
    assert split_source(f"docker-archive:{tmp_path}/m.tar") == ("docker-archive", f"{tmp_path}/m.tar")
    assert definition_file(None) == ROOT / "apptainer.def"


def test_a_build_that_fails_leaves_nothing_and_replaces_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("spython.main")
    # The file to make is the last but one argument; the runtime writes half of it and fails.
    program(tmp_path / "bin", "apptainer", 'while [ $# -gt 2 ]; do shift; done; echo half > "$1"; exit 3')
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    out = tmp_path / "out.sif"
    out.write_text("old")
    assert main(["image", "build", str(out)]) == 2
    assert "exists; give --force" in capsys.readouterr().err
    assert main(["image", "build", "--force", "--from", "docker://m:1", str(out)]) == 2
    assert "ended with exit code 3" in capsys.readouterr().err
    assert out.read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bin", "out.sif"]


def test_a_build_puts_the_image_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("spython.main")
    monkeypatch.setenv("SAID", str(tmp_path / "said"))
    program(tmp_path / "bin", "apptainer", 'echo "$@" > "$SAID"; while [ $# -gt 2 ]; do shift; done; echo sif > "$1"')
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    out = tmp_path / "new" / "out.sif"
    assert main(["image", "build", "--no-test", "--from", "docker://example.org/m:1", str(out)]) == 0
    assert out.read_text() == "sif\n"
    assert "build --build-arg SOURCE=docker --build-arg IMAGE=example.org/m:1 " in (tmp_path / "said").read_text()


def test_what_docker_saved_is_built_from_as_a_layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("spython.main")
    program(tmp_path / "bin", "apptainer", 'echo "$@" > "$SAID"; while [ $# -gt 2 ]; do shift; done; echo sif > "$1"')
    (tmp_path / "saved.tar").write_bytes(saved(["a/layer.tar", "b/layer.tar"]))
    program(tmp_path / "bin", "docker", f'[ "$1 $2" = "save medserl:cpu" ] && cat {tmp_path / "saved.tar"}')
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setenv("SAID", str(tmp_path / "said"))
    for source in ("docker-daemon:medserl:cpu", f"docker-archive:{tmp_path}/saved.tar"):
        assert main(["image", "build", "--force", "--from", source, str(tmp_path / "out.sif")]) == 0
        assert "--build-arg SOURCE=oci --build-arg IMAGE=" in (tmp_path / "said").read_text()


def test_a_layout_goes_when_the_runtime_has_its_own_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says so before it unpacks the copy (Apptainer 1.4.5, internal/pkg/build/sources/conveyorPacker_oci.go)."""
    pytest.importorskip("spython.main")
    script = [
        'for word; do case "$word" in IMAGE=*) layout=${word#IMAGE=} ;; esac; done',
        'test -f "$layout/index.json" || exit 4',
        'echo "INFO:    Extracting OCI image..."',
        'for _ in $(seq 100); do test -d "$layout" || break; sleep 0.1; done; test -d "$layout" && exit 5',
        'while [ $# -gt 2 ]; do shift; done; echo sif > "$1"',
    ]
    program(tmp_path / "bin", "apptainer", "\n".join(script))
    (tmp_path / "saved.tar").write_bytes(saved(["a/layer.tar"]))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setenv("APPTAINER_TMPDIR", str(tmp_path))
    words = ("--from", f"docker-archive:{tmp_path}/saved.tar", str(tmp_path / "out.sif"))
    assert main(["image", "build", *words]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bin", "out.sif", "saved.tar"]


def test_an_image_that_docker_does_not_have_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("spython.main")
    program(tmp_path / "bin", "apptainer", "exit 9")
    program(tmp_path / "bin", "docker", "exit 1")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    assert main(["image", "build", "--from", "docker-daemon:no:image", str(tmp_path / "out.sif")]) == 2
    told = f"`{tmp_path / 'bin' / 'docker'} save no:image` ended with exit code 1"
    assert told in capsys.readouterr().err
    assert not (tmp_path / "out.sif").exists()
