"""`medserl doctor` on this machine; what it does in an allocation is in tests/packaging/test_launcher.py."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from medserl.cli.doctor import has_other_nodes
from medserl.cli.main import main
from medserl.preflight.local_ranks import LocalRanks, address_of
from medserl.preflight.node_checks import Check
from medserl.preflight.preflight_report import machine_table


def test_what_is_missing_is_told_in_a_sentence_each(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--quick", "--run-dir", str(tmp_path / "run"), "--prompt-data", "/nowhere/notes.jsonl"]
    assert main(["doctor", *words, "actor_rollout_ref.model.path=/nowhere/model"]) == 1
    shown = capsys.readouterr()
    assert "bad: model: model /nowhere/model is not a directory here, and not in the Hugging Face cache" in shown.err
    assert "bad: notes: cannot read /nowhere/notes.jsonl" in shown.err
    rows = {line.split("  ")[0]: line.split()[-1] for line in shown.out.splitlines()}
    assert (rows["model"], rows["notes"], rows["run disk"]) == ("BAD", "BAD", "ok")
    assert {"GPUs", "memory", "/dev/shm", "open files", "torch", "clock", "visible GPUs"} <= set(rows)
    assert "all-reduce" not in rows
    assert shown.out.splitlines()[-1].endswith("checks failed")
    assert not (tmp_path / "run").exists()


def test_unknown_configuration_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--config", "no_such_configuration"]) == 2
    assert "no_such_configuration" in capsys.readouterr().err


def test_configuration_for_gpus_on_a_machine_without(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    words = ["--quick", "--config", "qwen3_4b_1node", "--run-dir", str(tmp_path), "actor_rollout_ref.model.path=/no"]
    assert main(["doctor", *words, "medserl.device=auto"]) == 1
    assert "bad: device: the configuration is for cuda, this machine runs cpu" in capsys.readouterr().err


def test_table_of_a_machine() -> None:
    table = machine_table([Check("GPUs", "8 H100"), Check("scratch", "1 GiB", "too little")], [Check("Slurm", "22.05")])
    assert [line.split()[-1] for line in table.splitlines()] == ["verdict", "ok", "BAD", "-"]


@pytest.mark.parametrize(
    ("variables", "several"),
    [
        ({}, False),
        ({"SLURM_JOB_ID": "7", "SLURM_JOB_NUM_NODES": "1"}, False),
        ({"SLURM_JOB_ID": "7", "SLURM_JOB_NUM_NODES": "4"}, True),
        ({"SLURM_JOB_ID": "7", "SLURM_JOB_NUM_NODES": "4", "SLURM_STEP_NUM_TASKS": "1"}, True),  # salloc's own step
        ({"SLURM_JOB_ID": "7", "SLURM_JOB_NUM_NODES": "4", "SLURM_STEP_NUM_TASKS": "4"}, False),  # srun medserl doctor
    ],
)
def test_allocation_of_several_nodes(variables: dict[str, str], several: bool) -> None:
    assert has_other_nodes(variables) is several


def test_interface_without_an_address() -> None:
    assert address_of("lo") == "127.0.0.1"
    (check,) = LocalRanks("nowhere0", 0).checks()
    assert "no IPv4 address" in str(check.problem)


@pytest.mark.engine
@pytest.mark.timeout(400)
def test_two_processes_of_this_machine_add_numbers(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "medserl", "doctor", "--run-dir", str(tmp_path), "medserl.notes.count=64"]
    environment = {**os.environ, "TMPDIR": "/tmp"}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=300)
    rows = {line.split("  ")[0]: line for line in done.stdout.splitlines()}
    assert rows["all-reduce"].endswith("ok"), done.stderr
    assert "GB/s" in rows["all-reduce"]
    assert rows["configuration"].endswith("ok")
    assert "instructions" in rows
    assert done.returncode == (1 if "BAD" in done.stdout else 0)
