"""What ``medserl evaluate`` refuses before anything starts, in one sentence and with exit code 2."""

import json
import shutil
from pathlib import Path

import pytest

from medserl.cli.main import main
from medserl.errors import ConfigError
from medserl.evaluation.engine import engine_options, fit_to_prompts, refusal, that_fit
from medserl.evaluation.model import BUILTIN_MODEL, check_files, model_directory
from medserl.evaluation.run import Request, engine_config
from medserl.run import checkpoint

WARD = ("--model", BUILTIN_MODEL, "--data", "ward:test", "--count", "2")
ROLLOUT = "actor_rollout_ref.rollout"


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["--data", "ward:test"], "--model: say which model"),
        (["--data", "ward:test", "--model", "/no/such/model"], "/no/such/model: is not a directory"),
        (
            ["--data", "ward:test", "--model", "nobody/nothing-9b"],
            "nobody/nothing-9b: is not a directory, and no model of that name is in",
        ),
        (["--model", BUILTIN_MODEL], "--data: say what to evaluate on"),
        (["--model", BUILTIN_MODEL, "--data", "nothing.csv"], "nothing.csv: no such file"),
        (["--model", BUILTIN_MODEL, "--data", "ward:none"], "no such split"),
        (["--model", BUILTIN_MODEL, "--data", "ward:test", "--format", "full"], "'ward' has no file assessor_full.txt"),
        (["--model", BUILTIN_MODEL, "--data", "ward:test", "--prompt-set", "nope"], "prompt set 'nope'"),
        (["--model", BUILTIN_MODEL, "--data", "ward:test", "--samples", "0"], "--samples: 0"),
        ([*WARD, "--samples", "999999999999"], "--samples: 999999999999 is not between 1 and 1000"),
        ([*WARD, "--samples", "3", "--temperature", "0"], "same reply"),
        ([*WARD, "--temperature", "nan"], "--temperature: nan is not between 0 and 5"),
        ([*WARD, "--seed", "-1"], "--seed: -1 is not between 0 and 2147483647"),
        ([*WARD, "--seed", "99999999999999999999999"], "--seed: 99999999999999999999999 is not between"),
        (
            [*WARD, f"{ROLLOUT}.tensor_model_parallel_size=two"],
            "tensor_model_parallel_size: 'two' is not a whole number",
        ),
        ([*WARD, f"{ROLLOUT}.dtype=bogus"], "rollout.dtype: 'bogus' is not one of bfloat16"),
        ([*WARD, "data.max_response_length=abc"], "data.max_response_length: 'abc' is not a whole number"),
        ([*WARD, "--count", "0"], "--count: 0 is less than 1"),
        ([*WARD, "--count", "999999999"], "--count: 999999999 is more than 100000"),
        (["--model", BUILTIN_MODEL, "--data", "ward:test", "--temperature", "-1"], "--temperature: -1.0"),
        (["--model", BUILTIN_MODEL, "--data", "ward:test", "--max-tokens", "0"], "--max-tokens: 0"),
        (["--model", BUILTIN_MODEL, "--data", "ward:test", "--config", "nope"], "--config nope: no such configuration"),
        (["--model", BUILTIN_MODEL, "--data", "ward:test", "trainer.nope=1"], "has a key trainer.nope"),
    ],
)
def test_refusals(
    arguments: list[str], what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["evaluate", *arguments]) == 2
    message = capsys.readouterr().err.strip()
    assert what in message and "\n" not in message
    assert list(tmp_path.iterdir()) == []


def test_an_existing_result_is_refused_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "results.json").touch()
    assert main(["evaluate", "--model", "x", "--data", "y", "--out", str(tmp_path)]) == 2
    assert "already exists" in capsys.readouterr().err


def test_model_directories(tmp_path: Path) -> None:
    from medserl.ward import MODEL_DIR

    assert model_directory(BUILTIN_MODEL) == model_directory(str(MODEL_DIR)) == MODEL_DIR
    with pytest.raises(ConfigError, match=r"no config\.json"):
        model_directory(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match="no weights"):
        model_directory(str(tmp_path))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model that is complete, in a folder of its own."""
    from medserl.ward import MODEL_DIR

    return Path(shutil.copytree(MODEL_DIR, tmp_path / "model"))


@pytest.mark.parametrize(
    ("file", "content", "told"),
    [
        ("model.safetensors", b"", "is empty, cut off or no safetensors file"),
        ("model.safetensors", b"version https://git-lfs.github.com/spec/v1", "is a pointer of git-lfs"),
        ("model.safetensors", b"x" * 1000, "no safetensors file"),
        ("model.safetensors", None, "holds 9\\d+ bytes of weights instead of"),
        ("model.safetensors.index.json", b'{"weight_map": {"a": "gone.safetensors"}}', "lacks gone.safetensors, which"),
        ("model.safetensors.index.json", b"[]", "its model.safetensors.index.json is damaged"),
        ("config.json", b"{", "config.json is not a model's configuration"),
        ("config.json", b"[1]", "config.json is not a model's configuration"),
        ("config.json", b"\xff", "config.json is not a model's configuration"),
        ("config.json", b'{"max_position_embeddings": "many"}', "config.json is not a model's configuration"),
    ],
)
def test_a_damaged_model_is_told_before_vllm_is_started(
    model: Path, file: str, content: bytes | None, told: str
) -> None:
    check_files(model, "--model m")
    path = model / file
    path.write_bytes(path.read_bytes()[:100_000] if content is None else content)
    with pytest.raises(ConfigError, match=f"--model m: .*{told}"):
        check_files(model, "--model m")


def test_a_model_inside_a_checkpoint_must_be_what_was_written(model: Path, tmp_path: Path) -> None:
    """Its weights and no other file of the checkpoint: the optimizer's are large, and nobody asks it."""
    staged = checkpoint.staging_dir(tmp_path / "checkpoints") / "global_step_3"
    (staged / "actor").mkdir(parents=True)
    shutil.move(model, staged / "actor/model")
    (staged / "actor/optimizer").write_text("moments")
    inside = checkpoint.publish(tmp_path / "checkpoints", 3, {}, None)
    (inside / "actor/optimizer").write_text("MOMENTS")
    check_files(inside / "actor/model", "m")
    weights = inside / "actor/model/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(ConfigError, match="its checkpoint global_step_3 is damaged: .* does not hold what was written"):
        check_files(inside / "actor/model", "m")


@pytest.mark.parametrize(("max_tokens", "left"), [(999999999, 0), (2000, 0), (1024, 0), (1000, 24), (925, 99)])
def test_a_reply_that_leaves_no_room_for_any_prompt_is_refused(max_tokens: int, left: int) -> None:
    """Not a result in which every text failed."""
    told = f"--max-tokens: {max_tokens} tokens of a reply leave {left} of the model's 1024 .* the shortest has 100;"
    with pytest.raises(ConfigError, match=told):
        that_fit([180, 100, 120], max_tokens, 1024)
    assert that_fit([180, 100, 120], 924, 1024) == [1] and that_fit([180, 100, 120], 1, 1024) == [0, 1, 2]


def test_what_vllm_refuses_is_told_by_its_reason() -> None:
    """pydantic's first line says how many errors there are, and nothing else."""
    error = ValueError(
        "1 validation error for ModelConfig\n  Value error, Model architectures ['FooBar'] are not supported for now. "
        "[type=value_error, input_value=ArgsKwargs((), {'model': ..., 'dtype': 'float32'}), input_type=ArgsKwargs]\n"
        "    For further information visit https://errors.pydantic.dev/2.11/v/value_error"
    )
    assert refusal(error) == "Model architectures ['FooBar'] are not supported for now."
    assert (
        refusal(RuntimeError("Engine core initialization failed.\nSee above.")) == "Engine core initialization failed."
    )
    assert refusal(RuntimeError()) == "RuntimeError"
    long = refusal(ValueError("It does not know `foobar`. " + "Perhaps it is too old. " * 30))
    assert long.startswith("It does not know `foobar`.") and long.endswith("too old.") and len(long) <= 400


def test_a_name_from_the_hub_is_looked_up_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    snapshot = tmp_path / "models--some--model" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    (snapshot / "model.safetensors").touch()
    (tmp_path / "models--some--model" / "refs").mkdir()
    (tmp_path / "models--some--model" / "refs" / "main").write_text("abc")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    assert model_directory("some/model") == snapshot


def test_engine_settings_come_from_the_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    default = engine_options(engine_config(Request(BUILTIN_MODEL)))
    assert default["tensor_parallel_size"] == 1 and default["dtype"] == "float32" and default["enforce_eager"] is True
    assert default["enable_chunked_prefill"] is False and default["kv_cache_memory_bytes"] == 2**26
    key = "actor_rollout_ref.rollout.tensor_model_parallel_size"
    cluster = engine_options(engine_config(Request(None, config="qwen3_4b_1node", overrides=(f"{key}=4",))))
    assert (
        cluster["tensor_parallel_size"] == 4
        and cluster["dtype"] == "bfloat16"
        and cluster["gpu_memory_utilization"] == 0.6
    )
    assert "kv_cache_memory_bytes" not in cluster


def test_a_configuration_for_the_other_device_is_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    arguments = ["--model", BUILTIN_MODEL, "--data", "ward:test", "--config", "qwen3_4b_1node"]
    assert main(["evaluate", *arguments]) == 2
    assert "the configuration is for cuda, this machine runs cpu" in capsys.readouterr().err


def test_engine_settings_are_plain_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are recorded as JSON after a long run."""
    key = "+actor_rollout_ref.rollout.engine_kwargs.vllm.hf_overrides"
    options = engine_options(engine_config(Request(None, config="embedded", overrides=(f"{key}={{a:[1,2]}}",))))
    assert json.loads(json.dumps(options)) == options and options["hf_overrides"] == {"a": [1, 2]}


def test_limits_grow_with_the_prompts() -> None:
    model = {"num_key_value_heads": 8, "num_hidden_layers": 36, "head_dim": 128}
    options = {"dtype": "float32", "enable_chunked_prefill": False, "max_num_batched_tokens": 2048}
    fitted = fit_to_prompts({**options, "kv_cache_memory_bytes": 2**26}, model, 4096)
    assert fitted["max_model_len"] == fitted["max_num_batched_tokens"] == 4096
    assert fitted["kv_cache_memory_bytes"] >= 4096 * 2 * 36 * 8 * 128 * 4
    unknown = fit_to_prompts({**options, "kv_cache_memory_bytes": 2**26}, {"hidden_size": 8}, 4096)
    assert unknown["kv_cache_memory_bytes"] == 2**26
    small = fit_to_prompts({**options, "kv_cache_memory_bytes": 2**40}, model, 100)
    assert small["kv_cache_memory_bytes"] == 2**40 and small["max_num_batched_tokens"] == 2048
    assert "max_num_batched_tokens" not in fit_to_prompts({"dtype": "bfloat16"}, model, 100)


def test_help_names_both_commands_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    assert {"evaluate", "compare"} <= set(capsys.readouterr().out.split())
