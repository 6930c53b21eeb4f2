"""What a node finds out about itself, and the report that names bad ones."""

import dataclasses
import json
import socket
from pathlib import Path

import pytest

from medserl.cli.main import main
from medserl.errors import UserError
from medserl.preflight.node_checks import (
    Check,
    content_checks,
    gpu_checks,
    host_checks,
    model_problem,
    read_gpus,
    run_dir_checks,
    software_checks,
)
from medserl.preflight.nvidia import Card
from medserl.preflight.preflight_report import make_report, odd_ones_out
from medserl.slurm.ray_steps import free_port

H100 = Card("0", "GPU-0", "NVIDIA H100 80GB HBM3", "580.95.05", 81559 * 2**20, 4 * 2**20)


def problems(checks: list[Check]) -> str:
    return "; ".join(check.problem for check in checks if check.problem)


def test_gpus_as_nvidia_smi_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    cards = [dataclasses.replace(H100, index=str(index)) for index in range(8)]
    checks = read_gpus(cards, 8)
    assert [check.value for check in checks] == ["8 NVIDIA H100 80GB HBM3", "80 GiB, 80 free", "580.95.05"]
    assert not problems(checks)
    assert "7 GPUs instead of 8" in problems(read_gpus(cards[:7], 8))
    cards[3] = dataclasses.replace(cards[3], used=40000 * 2**20)
    assert "GPU 3 has 39.1 GiB in use" in problems(read_gpus(cards, 8))
    assert "80 GiB, the run needs about 93" in problems(read_gpus(cards, 8, 1e11))


def test_missing_driver_is_a_problem_only_where_gpus_are_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    assert not problems(gpu_checks(0))
    assert "nvidia-smi" in problems(gpu_checks(8))


def test_driver_that_fails_is_quoted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'NVML: Driver/library version mismatch'\nexit 18\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert "version mismatch" in problems(gpu_checks(1))


def test_this_machine_can_be_looked_at(tmp_path: Path) -> None:
    names = [check.name for check in (*host_checks(tmp_path), *software_checks(""))]
    assert {"CPUs", "memory", "/dev/shm", "scratch", "open files", "medserl", "Python"} <= set(names)


def test_interface_must_be_there() -> None:
    assert not problems(software_checks("lo"))
    assert "no interface ib7" in problems(software_checks("ib7"))


def test_run_disk(tmp_path: Path) -> None:
    checks, skew = run_dir_checks(tmp_path / "not" / "made" / "yet", 0)
    assert not problems(checks)
    assert abs(skew) < 5
    checks, _ = run_dir_checks(tmp_path, 1e18)
    assert "one checkpoint takes" in problems(checks)
    assert not list(tmp_path.iterdir())


def test_model_must_be_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub-home"))
    assert "not a directory here, and not in the Hugging Face cache" in str(model_problem("Qwen/Qwen3-4B"))
    folder = tmp_path / "hub-home" / "hub" / "models--Qwen--Qwen3-4B" / "snapshots" / "abc"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    assert "has no tokenizer" in str(model_problem("Qwen/Qwen3-4B"))
    (folder / "tokenizer.json").write_text("{}")
    assert "has no weights" in str(model_problem(str(folder)))
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "model-1.safetensors").touch()
    assert "lacks model-2.safetensors" in str(model_problem("Qwen/Qwen3-4B"))
    (folder / "model-2.safetensors").touch()
    assert model_problem("Qwen/Qwen3-4B") is None
    assert model_problem("builtin:ward") is None


def test_notes_must_be_readable(tmp_path: Path) -> None:
    assert "cannot read /nowhere.csv" in problems(content_checks(None, ["/nowhere.csv"]))
    assert not content_checks(None, [])


def record(node: str, skew: float = 0.0, **values: str | Check) -> dict[str, object]:
    checks = [value if isinstance(value, Check) else Check(name, value) for name, value in values.items()]
    return {"node": node, "skew": skew, "checks": [vars(check) for check in checks]}


def test_report_names_bad_nodes(tmp_path: Path) -> None:
    records = {
        "a": record("a", driver="580", GPUs="8 H100"),
        "b": record("b", driver="580", GPUs=Check("GPUs", "7 H100", "7 GPUs instead of 8")),
        "c": record("c", driver="570", GPUs="8 H100"),
        "d": record("d", skew=61.0, driver="580", GPUs="8 H100"),
        "e": None,
    }
    report = make_report(records, tmp_path)
    assert report.problems == {
        "b": ["7 GPUs instead of 8"],
        "c": ["driver 570 where most have 580"],
        "d": ["clock is off by +61.0 s"],
        "e": [f"did not finish its checks; see {tmp_path / 'e'}.log"],
    }
    head, *rows = report.table.splitlines()
    assert head.split() == ["node", "driver", "GPUs", "clock", "verdict"]
    assert [row.split()[-1] for row in rows] == ["ok", "BAD", "BAD", "BAD", "BAD"]


def test_clocks_that_agree_with_each_other_are_fine(tmp_path: Path) -> None:
    """The disk's own clock may be off: it is nobody's."""
    assert not make_report({"a": record("a", 100.0), "b": record("b", 101.0)}, tmp_path).problems


def test_odd_ones_out() -> None:
    assert odd_ones_out({}) == {}
    assert odd_ones_out({"a": "1", "b": "1"}) == {}


def test_report_command_ends_with_1_where_a_node_is_bad(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.json").write_text(json.dumps(record("a", GPUs="none asked")))
    assert main(["slurm", "step", "preflight-report", "--folder", str(tmp_path), "a"]) == 0
    assert main(["slurm", "step", "preflight-report", "--folder", str(tmp_path), "a", "b"]) == 1
    shown = capsys.readouterr()
    assert "bad node b: did not finish its checks" in shown.err
    assert "--exclude=b" in shown.err


def test_quick_check_of_a_node_leaves_a_record(tmp_path: Path) -> None:
    plan = tmp_path / "plan.json"
    plan.write_text(json.dumps({"device": "cpu", "model": "builtin:ward", "files": [], "checkpoint_bytes": 1.0}))
    words = ["--node", "a", "--nodes", "a", "--plan", str(plan), "--out", str(tmp_path), "--run-dir", str(tmp_path)]
    assert main(["slurm", "step", "check-node", *words, "--tmp", str(tmp_path), "--level", "quick"]) == 0
    left = json.loads((tmp_path / "a.json").read_text())
    assert left["node"] == "a"
    assert "model" in [check["name"] for check in left["checks"]]


def test_ports_follow_from_the_job_and_are_free() -> None:
    first = free_port("127.0.0.1", 4711)
    assert 31110 <= first < 31120
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", first))
        taken.listen()
        second = free_port("127.0.0.1", 4711)
        assert second == first + 3


def test_all_ports_taken_is_one_sentence() -> None:
    sockets = []
    try:
        for port in range(20070, 20080):
            sockets.append(socket.socket())
            sockets[-1].bind(("127.0.0.1", port))
            sockets[-1].listen()
        with pytest.raises(UserError, match="ports 20070 to 20079 of 127.0.0.1 are taken; submit the job again"):
            free_port("127.0.0.1", 7)
    finally:
        for one in sockets:
            one.close()
