"""``medserl sft``: a short version of the tiny model's warm start, and fine-tuning on pairs from a file."""

import hashlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from medserl.run import checkpoint
from medserl.ward import MODEL_DIR

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]
SMALL = [
    "--steps", "4", "medserl.notes.count=60",
    "medserl.mixture.assessor_pairs=6", "medserl.mixture.injector_turns=8",
    "medserl.late_mixture.assessor_pairs=2", "medserl.late_mixture.injector_turns=16",
    "data.micro_batch_size_per_gpu=10", "trainer.save_freq=2", "trainer.max_ckpt_to_keep=2",
]  # fmt: skip


def sft(run_dir: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "medserl", "sft", "--run-dir", str(run_dir), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    run = tmp_path_factory.mktemp("sft") / "first"
    return run, sft(run, *SMALL)


def test_a_short_warm_start_learns_and_plays(first: tuple[Path, str]) -> None:
    from medserl.ward.player import Player

    run, output = first
    losses = [float(value) for value in re.findall(r"loss=([0-9.]+)", output)]
    assert len(losses) == 4 and losses[-1] < losses[0]
    assert len(Player.load(run / "model").answer([[{"role": "user", "content": "ASSESS\nA note."}]])) == 1
    assert json.loads((run / "finished.json").read_text())["step"] == 4
    assert list((run / "tensorboard").iterdir())
    assert digest(run / "model/tokenizer.json") == digest(MODEL_DIR / "tokenizer.json"), "made anew, and the same"


def test_a_finished_run_is_left_alone(first: tuple[Path, str]) -> None:
    assert "complete:" in sft(first[0], *SMALL)


def test_two_nodes_share_a_run_directory(first: tuple[Path, str], tmp_path: Path) -> None:
    """The same command on each, one worker there; the model is that of one node with two workers."""
    run = tmp_path / "run"
    command = [sys.executable, "-m", "medserl", "sft", "--run-dir", str(run), *SMALL]
    command += ["trainer.nnodes=2", "trainer.n_gpus_per_node=1"]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        shared = os.environ | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    nodes = [
        subprocess.Popen(
            command, env=shared | {"NODE_RANK": rank}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        for rank in ("1", "0")
    ]
    said = [node.communicate(timeout=600)[0] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], said
    assert "waiting for the first" in said[0] and "finished model" not in said[0] and "finished model" in said[1]
    assert checkpoint.steps(run / "checkpoints") == [2, 4]
    assert digest(run / "model/model.safetensors") == digest(first[0] / "model/model.safetensors")
    assert sorted(path.name for path in (run / "logs/1").iterdir()) == ["sft-node1.log", "sft.log"]
    open_to_others = [path for path in run.rglob("*") if path.lstat().st_mode & 0o077 and not path.is_symlink()]
    assert [path for path in open_to_others if run / "model" not in (path, *path.parents)] == []


def test_a_damaged_checkpoint_is_passed_over_and_the_model_is_the_same(first: tuple[Path, str], tmp_path: Path) -> None:
    """Four steps in one go, and two, then two again from the checkpoint of step 2, because that of step 4 is cut."""
    done = first[0] / "checkpoints"
    assert checkpoint.steps(done) == [2, 4]
    assert [checkpoint.damage(checkpoint.folder(done, step)) for step in (2, 4)] == [None, None]
    run = tmp_path / "again"
    shutil.copytree(first[0], run, symlinks=True)
    shutil.rmtree(run / "model")
    largest = max((run / "checkpoints/global_step_4").rglob("*"), key=lambda path: path.stat().st_size)
    os.truncate(largest, 100)
    output = sft(run, *SMALL)
    assert "global_step_4 is damaged: " in output and "from step 2 on" in output
    assert [checkpoint.damage(checkpoint.folder(run / "checkpoints", step)) for step in (2, 4)] == [None, None]
    assert digest(run / "model/model.safetensors") == digest(first[0] / "model/model.safetensors")


def test_pairs_from_a_file_make_the_same_model_each_time(tmp_path: Path) -> None:
    from medserl.ward import ward_notes

    rows = [
        {"note_id": n.note_id, "correct_note": n.text, "incorrect_note": n.error_text, "error_type": n.error_type}
        for n in ward_notes("train", 60, 3)
    ]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name in ("run", "again"):
        output = sft(
            tmp_path / name, "--data", str(tmp_path / "pairs.jsonl"), "--model", "builtin:ward", "--steps", "4",
            "medserl.mixture.assessor_pairs=10", "medserl.mixture.injector_turns=0", "medserl.late_mixture=null",
            "data.micro_batch_size_per_gpu=20", "engine.tensor_model_parallel_size=2",
        )  # fmt: skip
        assert "finished model" in output
    weights = [digest(tmp_path / name / "model/model.safetensors") for name in ("run", "again")]
    assert weights[0] == weights[1] != digest(MODEL_DIR / "model.safetensors")
