"""`medserl plan` at the command line: tables, JSON, and one sentence for what cannot be planned."""

import json
from pathlib import Path

import pytest

from medserl.cli.main import main
from medserl.config.family import config_path, leaves_open

TENSOR = "actor_rollout_ref.actor.megatron.tensor_model_parallel_size"
PIPELINE = "actor_rollout_ref.actor.megatron.pipeline_model_parallel_size"


def test_tables_of_the_default(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan"]) == 0
    out = capsys.readouterr().out
    assert "qwen3-4b: 4.022 G parameters (exact)" in out
    assert "1 x 8 GPUs = Megatron TP 2 x PP 1 x DP 4; vLLM TP 1, 8 engines" in out
    assert "fits; fullest in its rollout phase, 6.8 GiB left" in out
    for phase in ("log-probs", "update", "transfer", "rollout", "save", "load"):
        assert phase in out
    assert "100 rounds (assumed)" in out and "the fastest that fits" in out
    memory = [line for line in out.splitlines() if line.startswith(("weights ", "logits ", "KV cache  ", "node at a"))]
    assert len(memory) >= 4
    for line in memory:  # every figure says how it is known
        assert " exact " in line or " assumed " in line
    assert "\x1b" not in out and out.count("\n64 ") == 2


def test_json_has_everything_and_is_nothing_else(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    notes = tmp_path / "notes.jsonl"
    notes.write_text(
        "".join(json.dumps({"note_id": str(i), "text": f"Note {i}. It is short."}) + "\n" for i in range(64))
    )
    words = ["--config", "qwen3_4b_multinode", "--gpu", "h200", "--json", "--prompt-data", str(notes)]
    assert main(["plan", *words, "--assume", "mfu=0.5", "--nodes", "4", "--rollout-batch-size=64"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["refused"] is None and plan["gpu"]["name"] == "h200-141gb" and plan["gpus"] == 32
    assert plan["training"]["dp"] == 8 and plan["run"]["rounds"] == 3 and plan["run"]["counted"]
    assert plan["assumptions"]["mfu"] == {**plan["assumptions"]["mfu"], "value": 0.5, "known": "given"}
    update = plan["phases"]["update"]
    assert update["total"] == pytest.approx(sum(update["parts"].values()))
    assert update["headroom"] == plan["gpu"]["memory"] - update["total"]
    assert set(update["parts"]) <= set(plan["known"])
    assert len(plan["choices"]) > 50 and len(plan["strong"]) == len(plan["weak"]) == 7


def test_what_does_not_fit_is_shown_and_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--config", "qwen3_4b_1gpu", "--gpu", "a100-40gb", "--json"]) == 2
    shown = capsys.readouterr()
    assert json.loads(shown.out)["refused"] in shown.err
    assert "an update needs about 54.3 GiB of each GPU" in shown.err and shown.err.count("\n") == 1
    assert main(["plan", "--host-memory", "64"]) == 2
    assert "--host-memory says 64.0 GiB" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--gpu", "h1oo"], "--gpu h1oo: is not known; did you mean h100-80gb? known: "),
        (["--model", "qwen4-3b"], "--model qwen4-3b: no such file, and no model known by name; did you mean qwen"),
        (
            [f"{TENSOR}=16", "--gpus-per-node=16"],
            "num_key_value_heads 8 cannot be divided by tensor_model_parallel",
        ),
        ([f"{PIPELINE}=8", f"{TENSOR}=1"], "num_hidden_layers 36 cannot be divided by pipeline_model_parallel_size 8"),
        (["--nodes", "3"], "trajectories cannot be divided by 12 data-parallel replicas"),
        (["--nodes", "0"], "--nodes 0: give 1 or more"),
        (["--host-memory", "0"], "--host-memory 0: is not a size"),
        (["--assume", "mfu=2"], "2 is a share"),
        (["--config", "embedded"], "--config embedded: is for cpu, and GPUs are planned"),
        (["--config", "no_such"], "--config no_such: no such configuration"),
        (["--prompt-data", "/nowhere.jsonl"], "/nowhere.jsonl is not there; give a file of notes, or leave it out"),
        (["actor_rollout_ref.model.path=/nowhere"], "actor_rollout_ref.model.path: /nowhere: no such file"),
        (["data.max_response_length=40000"], "is more than the model's max_position_embeddings 40960"),
        (["medserl.referee.name=judge", "--gpus-per-node=8"], "needs 1 GPU in addition to the training's"),
    ],
)
def test_bad_input_is_one_sentence(capsys: pytest.CaptureFixture[str], words: list[str], sentence: str) -> None:
    assert main(["plan", *words]) == 2
    shown = capsys.readouterr()
    assert sentence in shown.err and shown.err.count("\n") == 1 and not shown.out


def test_notes_that_a_configuration_leaves_to_the_user() -> None:
    open_ = {name: leaves_open(config_path(name), "medserl.notes.path") for name in ("qwen3_4b_multinode", "embedded")}
    assert open_ == {"qwen3_4b_multinode": True, "embedded": False}
