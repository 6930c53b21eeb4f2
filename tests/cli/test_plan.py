"""`medserl plan` at the command line: tables, JSON, and one sentence for what cannot be planned."""

import json
import math
from pathlib import Path

import pytest

from medserl.bringup.flops import QWEN3_4B
from medserl.cli.main import main
from medserl.config.family import config_path, leaves_open
from medserl.errors import ConfigError
from medserl.planning.shapes import shape_of

ACTOR = "actor_rollout_ref.actor"
TENSOR = "actor_rollout_ref.actor.megatron.tensor_model_parallel_size"
LAST = "actor_rollout_ref.actor.megatron.override_transformer_config.num_layers_in_last_pipeline_stage"
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
    assert all(choice["vllm_share"] <= 0.6 for choice in plan["choices"])
    assert len(plan["choices"]) > 50 and len(plan["strong"]) == len(plan["weak"]) == 7


def test_what_a_warm_start_keeps_and_how_its_micro_batches_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    """It judges no checkpoint, so that there is no best one; and there is no vLLM whose TP could be varied."""
    assert main(["plan", "--config", "sft_qwen3_4b"]) == 0
    out = capsys.readouterr().out
    assert "52.4 GiB each, 1 kept, one under way: 104.9 GiB" in out
    assert "TP 2 x PP 1 x DP 4, 4 rows *" in out and "not varied" not in out
    assert main(["plan"]) == 0
    out = capsys.readouterr().out
    assert "3 kept, the best and one under way: 262.2 GiB" in out
    assert "vLLM TP 1 in all" in out and "not varied: the latency of its all-reduces" in out


def test_what_does_not_fit_is_shown_and_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--config", "qwen3_4b_1gpu", "--gpu", "a100-40gb", "--json"]) == 2
    shown = capsys.readouterr()
    assert json.loads(shown.out)["refused"] in shown.err
    assert "an update needs about 54.3 GiB of each GPU" in shown.err and shown.err.count("\n") == 1
    assert main(["plan", "--host-memory", "64", "--gpu=h100-nvl-94gb"]) == 2
    shown = capsys.readouterr()
    assert "--host-memory says 64.0 GiB" in shown.err
    assert "NVIDIA H100 NVL product brief; NVLink joins pairs, from memory: to be checked)" in shown.out


def test_a_shorter_last_stage_is_planned(capsys: pytest.CaptureFixture[str]) -> None:
    """Its logits take as long as some layers: with one layer less there the round is faster."""
    plans = []
    for words in ([], [f"+{LAST}=17"], [f"+{LAST}=1"]):
        assert main(["plan", "--config", "qwen3_4b_multinode", "--json", *words]) == 0
        plans.append(json.loads(capsys.readouterr().out))
    even, less, least = plans
    assert less["training"]["last_layers"] == 17
    assert less["seconds"]["update"] < even["seconds"]["update"] < least["seconds"]["update"]
    assert less["phases"]["update"]["total"] < even["phases"]["update"]["total"]  # of the last stage
    assert least["phases"]["update"]["stage"] == 0  # with 35 layers
    assert main(["plan", f"{PIPELINE}=8", f"{TENSOR}=1", f"+{LAST}=1"]) == 0  # 36 alone cannot be divided by 8


def test_a_warm_start_is_told_in_steps(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--config", "sft_qwen3_4b"]) == 0
    out = capsys.readouterr().out
    assert main(["plan", "medserl.max_rounds=1"]) == 0
    assert "1 round (medserl.max_rounds): " in capsys.readouterr().out
    assert "300 steps (medserl.steps): " in out and "s every 100 steps" in out


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
        (["--assume", "mfu=2"], "--assume mfu=2: must be a share"),
        (["--config", "embedded"], "--config embedded: is for cpu, and GPUs are planned"),
        (["--config", "no_such"], "--config no_such: no such configuration"),
        (["--prompt-data", "/nowhere.jsonl"], "/nowhere.jsonl is not a file here; give a file of notes, or leave it"),
        (["--prompt-data", "/dev/null"], "/dev/null is not a file here"),
        (["--config=sft_qwen3_4b", "--prompt-data", "/nowhere.jsonl"], "/nowhere.jsonl is not a file here"),
        (["medserl.device=cpu"], "medserl.device is cpu"),
        (["actor_rollout_ref.model.path=/nowhere"], "actor_rollout_ref.model.path: /nowhere: no such file"),
        (
            ["data.max_response_length=40000"],
            "max_position_embeddings 40960; give data.max_prompt_length=27307 data.max_resp",
        ),
        (["--gpu="], "--gpu '': is not known"),
        (["--model="], "--model '': is empty; give a model's folder"),
        (["--assume", "rounds=1.5"], "'1.5' is not a whole number above 0"),
        (["--assume", "mfu=1e-320"], "1e-320 is out of reach; give a number between 4e-06 and 1: share of"),
        (["--assume", "launch=1e308"], "1e308 is out of reach; give a number between 1.5e-09 and 15"),
        (["--assume", "mfu=0.3", "--assume", "mfu=0.5"], "mfu is given twice"),
        (["model_engine=dp"], "model_engine: memory and time are worked out for Megatron only"),
        ([f"{ACTOR}.ppo_max_token_len_per_gpu=3583"], "3583 is less than the 3584 tokens that a prompt and its reply"),
        ([f"{ACTOR}.megatron.expert_model_parallel_size=2"], "expert_model_parallel_size: 2 is not supported, only 1"),
        ([f"{ACTOR}.megatron.virtual_pipeline_model_parallel_size=3"], "3 is not supported, only null; interleaved"),
        (["--config=sft_qwen3_4b", "engine.virtual_pipeline_model_parallel_size=2"], "only null; interleaved"),
        (
            ["medserl.referee.name=judge", "--gpus-per-node=8"],
            "1 GPU in addition to the training's, on one node, where 0 "
            "are left; set trainer.n_gpus_per_node=4 or serve it yourself (url)",
        ),
        (
            ["medserl.referee.name=judge", "--gpus-per-node=1"],
            "where 0 are left; take nodes with more GPUs or serve it",
        ),
        (["--config=sft_qwen3_4b", "--gpus-per-node=3"], "= 3 workers cannot be divided by TP 2 x PP 1 = 2 (engine)"),
        (["--config=sft_qwen3_4b", "--nodes=64"], "demonstrations (medserl.mixture) cannot be divided by 256 data-par"),
        (["--config=qwen3_4b_multinode", f"+{LAST}=abc"], f"{LAST}: 'abc' is not a whole number"),
        (
            ["--config=qwen3_4b_multinode", f"+{LAST}=36"],
            "cannot be dealt to pipeline_model_parallel_size 2 with num_l",
        ),
        (
            [f"+{LAST}=17"],
            "cannot be dealt to pipeline_model_parallel_size 1 with num_layers_in_last_pipeline_stage 17",
        ),
    ],
)
def test_bad_input_is_one_sentence(capsys: pytest.CaptureFixture[str], words: list[str], sentence: str) -> None:
    assert main(["plan", *words]) == 2
    shown = capsys.readouterr()
    assert sentence in shown.err and shown.err.count("\n") == 1 and not shown.out


NO_COUNTS = (0, -1, "4096", 1.5, True, [], math.nan, 1e30)
NUMBERS = ("hidden_size", "num_hidden_layers", "intermediate_size", "num_attention_heads", "num_key_value_heads")
NUMBERS += ("head_dim", "vocab_size", "max_position_embeddings")


@pytest.mark.parametrize("key", [*NUMBERS, "tie_word_embeddings"])
def test_a_config_json_with_a_value_that_is_none_is_refused(key: str) -> None:
    for value in NO_COUNTS if key != "tie_word_embeddings" else ("true", 0, 1.5, []):
        with pytest.raises(ConfigError, match=rf"^folder: {key} is .*; copy the model's own file$") as error:
            shape_of({**QWEN3_4B, key: value}, "folder")
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("key", NUMBERS)
def test_a_config_json_without_a_value_is_refused_or_takes_what_transformers_would(key: str) -> None:
    model = {name: value for name, value in QWEN3_4B.items() if name != key}
    if key in ("num_key_value_heads", "head_dim", "max_position_embeddings"):
        shape_of(model, "folder")
    else:
        with pytest.raises(ConfigError, match=f"^folder: {key} is missing"):
            shape_of(model, "folder")


def test_sizes_of_a_config_json_that_do_not_divide_are_named() -> None:
    with pytest.raises(ConfigError, match="num_attention_heads 30 cannot be divided by num_key_value_heads 8"):
        shape_of({**QWEN3_4B, "num_attention_heads": 30}, "folder")
    with pytest.raises(ConfigError, match="hidden_size 2561 cannot be divided by num_attention_heads 32"):
        shape_of({**QWEN3_4B, "hidden_size": 2561, "head_dim": None}, "folder")


def test_notes_that_a_configuration_leaves_to_the_user() -> None:
    open_ = {name: leaves_open(config_path(name), "medserl.notes.path") for name in ("qwen3_4b_multinode", "embedded")}
    assert open_ == {"qwen3_4b_multinode": True, "embedded": False}
