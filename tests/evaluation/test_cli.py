"""What ``medserl evaluate`` refuses before anything starts, in one sentence and with exit code 2."""

import json
from pathlib import Path

import pytest

from medserl.cli.main import main
from medserl.evaluation.engine import engine_options, fit_to_prompts
from medserl.evaluation.run import BUILTIN_MODEL, Request, engine_config, model_directory


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ([], "--model: say which model"),
        (["--model", "/no/such/model"], "/no/such/model: is no directory"),
        (["--model", "nobody/nothing-9b"], "nobody/nothing-9b: is no directory, and no model of that name is in"),
        (["--model", BUILTIN_MODEL], "--data: say what to evaluate on"),
        (["--model", BUILTIN_MODEL, "--data", "nothing.csv"], "nothing.csv: no such file"),
        (["--model", BUILTIN_MODEL, "--data", "ward:none"], "no such split"),
        (["--model", BUILTIN_MODEL, "--data", "ward:test", "--format", "full"], "'ward' has no file assessor_full.txt"),
        (["--model", BUILTIN_MODEL, "--data", "ward:test", "--prompt-set", "nope"], "prompt set 'nope'"),
        (["--model", BUILTIN_MODEL, "--data", "ward:test", "--samples", "0"], "--samples: 0"),
        (["--model", BUILTIN_MODEL, "--data", "ward:test", "--samples", "3", "--temperature", "0"], "same reply"),
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
    assert "there already" in capsys.readouterr().err


def test_model_directories(tmp_path: Path) -> None:
    from medserl.errors import ConfigError
    from medserl.ward import MODEL_DIR

    assert model_directory(BUILTIN_MODEL) == model_directory(str(MODEL_DIR)) == MODEL_DIR
    with pytest.raises(ConfigError, match=r"no config\.json"):
        model_directory(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match="no weights"):
        model_directory(str(tmp_path))


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
