"""What a start takes by itself follows from the model and the notes; what does not fit them is refused, all at once."""

from __future__ import annotations

import argparse
import json
import re
import shutil
from pathlib import Path

import pytest

from medserl.cli.arguments import chosen_config
from medserl.cli.main import build_parser, main
from medserl.config.load import game_settings, load_config, load_sft_config
from medserl.config.model_at_hand import named_model, prompts_for
from medserl.errors import EXIT_OK, EXIT_USAGE, ConfigError, DataError, Problems
from medserl.evaluation.engine import Decoding, assess
from medserl.evaluation.kept import KeptAnswers
from medserl.evaluation.model import check_files, model_directory
from medserl.evaluation.run import Request, engine_config
from medserl.preflight.model_files import read_model_config
from medserl.preflight.notes_fit import check_referee_knows
from medserl.preflight.prompt_lengths import load_tokenizer, prompt_counter
from medserl.run.weights import stranger
from medserl.ward import MODEL_DIR, ward_notes
from medserl.ward.language import LEAST_KNOWN, is_ward_model, known_share
from tests.preflight.models import CHATML, make_model, real_notes

THINKS = CHATML.replace("assistant\n' }}", "assistant\n<think>\n' }}")
SWITCHED = CHATML.replace(
    "{% endif %}", "{% if enable_thinking is defined and not enable_thinking %}<think></think>{% endif %}{% endif %}"
)


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


def start(tmp_path: Path, *words: str) -> int:
    """``medserl train --dry-run`` with the acceptance command's options on notes that people write."""
    notes = real_notes(tmp_path / "medec_train.jsonl")
    command = ["train", "--prompt-data", str(notes), "--vcf-min-jaccard", "0.85", "--run-dir", str(tmp_path / "run")]
    return main([*command, "--dry-run", *words])


@pytest.mark.parametrize("architecture", ["LlamaForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM"])
def test_real_notes_and_a_real_model_need_no_more_options(
    architecture: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = make_model(tmp_path / "model", architecture)
    assert start(tmp_path, "--model", str(model)) == EXIT_OK
    out = capsys.readouterr().out
    assert "of 8 notes and 4 gold-labelled notes" in out and "referee instruction" in out and "TP 1 x PP 2" in out


def test_real_notes_are_not_for_the_tiny_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert start(tmp_path, "--rollout-batch-size", "8") == EXIT_USAGE
    error = capsys.readouterr().err.splitlines()[-1]
    assert "the ward's tiny one" in error and "--model DIR" in error and "prompt needs" not in error
    assert not (tmp_path / "run").exists()


def test_a_warm_start_of_the_tiny_model_is_not_for_real_notes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    notes = real_notes(tmp_path / "notes.jsonl")
    assert main(["sft", "--data", str(notes), "--run-dir", str(tmp_path / "run"), "--dry-run"]) == EXIT_USAGE
    assert "the ward's tiny one (model.path)" in capsys.readouterr().err


def test_notes_without_gold_errors_mix_nothing_in(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    notes = real_notes(tmp_path / "plain.jsonl", gold=False)
    model = make_model(tmp_path / "model")
    words = ["--prompt-data", str(notes), "--model", str(model), "--run-dir", str(tmp_path / "run"), "--dry-run"]
    assert main(["train", *words]) == EXIT_OK
    assert "no gold labels" in capsys.readouterr().out
    assert "medserl.labelled_share is 0 instead of 0.5" in caplog.text


def test_all_problems_are_told_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = make_model(tmp_path / "model", max_position_embeddings=512, num_hidden_layers=3)
    words = ["--model", str(model), "--rollout-batch-size", "40", "medserl.thinking=true"]
    assert start(tmp_path, *words) == EXIT_USAGE
    error = capsys.readouterr().err
    told = (
        "num_hidden_layers 3 cannot be divided by pipeline_model_parallel_size 2",
        "max_position_embeddings 512",
        "has no enable_thinking",
        "12 notes are fewer than one round's medserl.rollout_batch_size 40",
    )
    assert [sentence for sentence in told if sentence not in error] == []
    assert "4 things stand in the way" in error and len(error.split("stand in the way")[1].splitlines()) == 5


def without_a_shard(model: Path) -> Path:
    (model / "model.safetensors").rename(model / "model-1.safetensors")
    index = {"weight_map": {"model.norm.weight": "model-1.safetensors", "x": "model-2.safetensors"}}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    return model


def test_a_wrong_word_hides_neither_a_shard_nor_a_file_nor_ray(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every command tells what is wrong with the settings and with what they name in one list."""
    model = str(without_a_shard(make_model(tmp_path / "model")))
    monkeypatch.setattr("medserl.evaluation.engine.prepare_device", lambda config: "cpu")
    monkeypatch.setenv("MEDSERL_DEADLINE", "soon")
    out, wrong = str(tmp_path / "out"), ("medserl.seed=many", "trainer.nope=1")
    shard, word, key = "lacks model-2.safetensors", "medserl.seed takes a whole number", "has a key trainer.nope"
    absent = "absent.jsonl: no such file"
    ray = "+ray_kwargs.ray_init.address=head"
    commands = (
        (
            ["train", "--prompt-data", "absent.jsonl", "--max-epochs", "two", "--run-dir", out, "--dry-run", ray],
            ("trainer.total_epochs: 'two'", "'head' is not an address of a Ray", "MEDSERL_DEADLINE: 'soon'"),
        ),
        (["sft", "--data", "absent.jsonl", "--run-dir", out, "--dry-run", "--steps", "-1"], ("medserl.steps: -1",)),
        (["evaluate", "--data", "absent.jsonl", "--out", out, "--samples", "0"], ("--samples: 0",)),
        (["check", "absent.jsonl", "--out", out, "--prompt-set", "nope"], ("prompt set 'nope'",)),
    )
    for command, more in commands:
        assert main([*command, "--model", model, *wrong]) == EXIT_USAGE
        error = capsys.readouterr().err
        told = (shard, word, key, absent, *more)
        assert f"{len(told)} things stand in the way" in error, error
        assert [sentence for sentence in told if sentence not in error] == []
    assert not Path(out).exists()


def test_a_problem_is_told_once_and_alone_as_it_is() -> None:
    problems = Problems()
    problems.tell()
    for _ in range(2):
        with problems.noted():
            raise DataError("notes.csv: row 3")
    with pytest.raises(DataError, match=r"^notes\.csv: row 3$"):
        problems.tell()
    with pytest.raises(KeyError), problems.noted():
        raise KeyError("no user's error")


def test_the_prompts_follow_the_model(tmp_path: Path) -> None:
    real = make_model(tmp_path / "real")
    copy = shutil.copytree(MODEL_DIR, tmp_path / "copy")
    (copy / "tokenizer.json").write_text(json.dumps(json.loads((copy / "tokenizer.json").read_text()), indent=1))
    assert is_ward_model(MODEL_DIR) and is_ward_model(copy) and not is_ward_model(real)
    assert not is_ward_model(tmp_path / "nowhere")
    assert [
        prompts_for(m) for m in ("builtin:ward", "untrained:ward", str(copy), str(real), "Qwen/Qwen3-4B", None)
    ] == [
        *["ward"] * 3,
        *["clinical"] * 3,
    ]
    path = "actor_rollout_ref.model.path"
    assert load_config("embedded").medserl.prompt_set == "ward"
    assert load_config("embedded", [f"{path}={real}"]).medserl.prompt_set == "clinical"
    assert load_config("embedded", [f"{path}={real}", "medserl.prompt_set=ward"]).medserl.prompt_set == "ward"
    assert load_sft_config("sft_embedded").medserl.prompt_set == "ward"
    assert load_sft_config("sft_embedded", [f"model.path={real}"]).medserl.prompt_set == "clinical"


def parsed(*words: str) -> argparse.Namespace:
    return build_parser().parse_known_args(words)[0]


def test_the_configuration_follows_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = make_model(tmp_path / "real")
    path = "actor_rollout_ref.model.path"
    for overrides, name in (
        ([], "embedded"),
        ([f"{path}=builtin:ward"], "embedded"),
        ([f"{path}={MODEL_DIR}"], "embedded"),
        ([f"{path}='{real}'"], "real_cpu"),
        ([f"{path}={real}", f"{path}=builtin:ward"], "embedded"),
    ):
        assert chosen_config(parsed("train"), overrides) == name
    assert chosen_config(parsed("sft"), []) == "sft_embedded"
    assert chosen_config(parsed("sft"), [f"model.path={real}"]) == "sft_real_cpu"
    assert chosen_config(parsed("train", "--config", "embedded"), [f"{path}={real}"]) == "embedded"
    assert named_model([r"++model.path='it\'s'"]) == "it's"
    monkeypatch.setattr("medserl.cpu.environment.choose_device", lambda *_: "cuda")
    assert chosen_config(parsed("train"), []) == "embedded"
    with pytest.raises(ConfigError, match="this machine has a GPU; name a configuration"):
        chosen_config(parsed("train"), [f"{path}={real}"])


def test_statistics_measure_what_a_run_with_the_model_takes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    real, notes = make_model(tmp_path / "real"), real_notes(tmp_path / "notes.jsonl", 2)
    for model, config, overrides, expected in (
        (real, None, [], ("clinical", "phrase", None)),
        (MODEL_DIR, None, [], ("ward", "edit", None)),
        (None, None, [f"actor_rollout_ref.model.path={real}"], ("clinical", "phrase", 1024)),
        (real, "embedded", [], ("clinical", "edit", 192)),
        (real, None, ["medserl.injector_format=note"], ("clinical", "note", 1024)),
    ):
        counter = prompt_counter(config, model, overrides, notes)
        assert (counter.prompt_set, counter.injector_format, counter.limit) == expected
    lengths = {}
    for format_ in ("phrase", "edit"):
        counter = prompt_counter(None, real, [f"medserl.injector_format={format_}"], notes)
        lengths[format_] = counter.needed(counter.prompts("He is well. He goes.", None))[0]
    assert lengths["phrase"] != lengths["edit"]
    assert main(["data", "stats", str(notes), "--model", str(real)]) == EXIT_OK
    assert "prompts    clinical, replies in the format phrase" in capsys.readouterr().out


def test_an_evaluation_asks_a_real_model_in_clinical_words(tmp_path: Path) -> None:
    real = make_model(tmp_path / "real")
    config = engine_config(Request(str(real)))
    assert config.medserl.prompt_set == "clinical" and config.data.max_response_length == 128
    config = engine_config(Request("builtin:ward"))
    assert config.medserl.prompt_set == "ward" and config.data.max_response_length == 64


def test_the_language_of_the_ward_is_told_from_that_of_people(tmp_path: Path) -> None:
    for split in ("train", "validation", "test"):
        assert known_share(note.text for note in ward_notes(split, 50, 3)) > LEAST_KNOWN + 0.1
    rows = real_notes(tmp_path / "notes.jsonl").read_text().splitlines()
    assert known_share(json.loads(row)["correct_note"] for row in rows) < LEAST_KNOWN - 0.1
    assert known_share(["12.5 mg", "§§"]) == 1.0


BAD_MODELS = {
    "no template": ({"template": None}, [], "its tokenizer has no chat template"),
    "no switch": (
        {},
        ["medserl.thinking=true"],
        "its chat template has no enable_thinking, so that the model does not",
    ),
    "always thinks": ({"template": THINKS}, [], "has no enable_thinking and opens a thought in every reply"),
    "short context": ({"max_position_embeddings": 1000}, [], "1152 (data.max_prompt_length"),
    "no bridge": (
        {"architecture": "Gemma3ForCausalLM"},
        [],
        "Qwen3ForCausalLM, Qwen2ForCausalLM, LlamaForCausalLM, Mistral",
    ),
    "yarn": ({"rope_scaling": {"type": "yarn", "factor": 4.0}}, [], "rotary positions of type 'yarn'"),
}


@pytest.mark.parametrize("name", BAD_MODELS)
def test_a_model_that_does_not_fit_is_refused_in_a_sentence(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changed, words, told = BAD_MODELS[name]
    model = make_model(tmp_path / "model", **changed)
    assert start(tmp_path, "--model", str(model), *words) == EXIT_USAGE
    error = capsys.readouterr().err
    assert told in error and len(error.splitlines()) == 1
    assert not (tmp_path / "run").exists()


NO_TEMPLATE = "has no chat template; use an instruction-tuned model"
BAD_EVERYWHERE = {
    "no template": ({"template": None}, (NO_TEMPLATE,) * 4),
    "short context": (
        {"max_position_embeddings": 40},
        (
            "is more than the model's max_position_embeddings 40; lower them",
            "a demonstration of the assessor has",
            "of the model's 40 for a prompt",
            "of the model's 40 for a prompt",
        ),
    ),
    "no weights": ({}, ("copy the whole model again",) * 4),
    "another's tokenizer": ({"vocab_size": 1}, ("has 3 tokens, its model 1; copy",) * 4),
}


@pytest.mark.parametrize("name", BAD_EVERYWHERE)
def test_every_command_refuses_it_before_it_starts(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    changed, told = BAD_EVERYWHERE[name]
    model, notes = make_model(tmp_path / "model", **changed), real_notes(tmp_path / "pairs.jsonl")
    if name == "no weights":
        (model / "model.safetensors").unlink()
    monkeypatch.setattr("medserl.evaluation.engine.prepare_device", lambda config: "cpu")
    asked = ["--model", str(model)]
    out = [f"{tmp_path}/out", f"{tmp_path}/out.csv"]
    commands = (
        ["train", *asked, "--prompt-data", str(notes), "--run-dir", out[0], "--dry-run"],
        ["sft", *asked, "--data", str(notes), "--run-dir", out[0], "--dry-run"],
        ["evaluate", *asked, "--data", str(notes), "--out", out[0]],
        ["check", str(notes), *asked, "--out", out[1]],
    )
    for command, sentence in zip(commands, told, strict=True):
        assert main(command) == EXIT_USAGE
        error = [line for line in capsys.readouterr().err.splitlines() if line.startswith("medserl: error")]
        assert len(error) == 1 and sentence in error[0]
    assert not any(Path(path).exists() for path in out)


SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"


@pytest.mark.parametrize("template", [SYSTEM, "{% if x %}", "{{ messages[0]['content'].nothing() }}", "{{ 1 + 'a' }}"])
def test_statistics_too_tell_of_a_template_that_cannot_render(
    template: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = make_model(tmp_path / "model", template=template)
    notes = real_notes(tmp_path / "notes.jsonl", 2)
    assert main(["data", "stats", str(notes), "--model", str(model)]) == EXIT_USAGE
    error = capsys.readouterr().err
    assert "its chat template does not render the game's messages" in error and len(error.splitlines()) == 1


def gguf(path: Path) -> None:
    path.write_bytes(b"GGUF\x03")


def adapter(path: Path) -> None:
    path.mkdir()
    (path / "adapter_config.json").touch()
    (path / "adapter_model.safetensors").touch()


def two_formats(path: Path) -> None:
    make_model(path)
    (path / "params.json").touch()
    (path / "consolidated.safetensors").touch()


STRANGERS = {
    "is a GGUF file; a model directory is made of one by transformers": gguf,
    "is a file; give the model's directory": Path.touch,
    "is a symbolic link that leads nowhere": lambda path: path.symlink_to(path),
    "holds an adapter (LoRA), no model; merge it": adapter,
    "holds params.json and consolidated*.safetensors, which vLLM reads": two_formats,
}


@pytest.mark.parametrize("told", STRANGERS)
def test_what_is_taken_for_a_model_is_told_by_name(told: str, tmp_path: Path) -> None:
    path = tmp_path / "model"
    STRANGERS[told](path)
    for read in (read_model_config, load_tokenizer, lambda path, key: model_directory(str(path))):
        with pytest.raises(ConfigError, match=re.escape(told)):
            read(path, "--model")


def test_a_gguf_file_beside_a_config_is_no_model(tmp_path: Path) -> None:
    model = make_model(tmp_path / "model")
    assert stranger(model) is None
    (model / "model.safetensors").rename(model / "model.gguf")
    assert "holds a GGUF file and no other weights" in (stranger(model) or "")


def test_real_notes_are_not_for_the_oracle(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every game would be void, and the run would end with exit code 0."""
    real = make_model(tmp_path / "real")
    for key in ("referee", "second_referee"):
        assert start(tmp_path, "--model", str(real), f"medserl.{key}.name=oracle") == EXIT_USAGE
        error = capsys.readouterr().err
        assert "the referee oracle knows the condition of 0 of 12 notes" in error and len(error.splitlines()) == 1
    settings = game_settings(load_config("real_cpu", ["medserl.notes.path=x.csv", "medserl.referee.name=oracle"]))
    check_referee_knows(settings, ward_notes("train", 20, 1))


def test_templates_that_can_do_what_is_asked_pass(tmp_path: Path) -> None:
    switched = make_model(tmp_path / "switched", template=SWITCHED)
    thinks = make_model(tmp_path / "thinks", template=THINKS)
    for model, words in ((switched, []), (switched, ["medserl.thinking=true"]), (thinks, ["medserl.thinking=true"])):
        assert start(tmp_path, "--model", str(model), *words) == EXIT_OK


def test_a_missing_shard_is_told_by_training_and_evaluation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = without_a_shard(make_model(tmp_path / "model"))
    assert start(tmp_path, "--model", str(model)) == EXIT_USAGE
    assert "lacks model-2.safetensors" in capsys.readouterr().err
    with pytest.raises(ConfigError, match=r"lacks model-2\.safetensors"):
        check_files(model, "--model")


@pytest.mark.parametrize(
    ("changed", "thinking", "told"),
    [
        ({"template": None}, False, "no chat template"),
        ({"template": THINKS}, False, "opens a thought"),
        ({}, True, "has no enable_thinking"),
        ({"max_position_embeddings": 64}, False, "of the model's 64 for a prompt"),
    ],
)
def test_an_evaluation_refuses_the_same_before_vllm_starts(
    changed: dict[str, object], thinking: bool, told: str, tmp_path: Path
) -> None:
    model = make_model(tmp_path / "model", **changed)  # type: ignore[arg-type]
    chat = [{"role": "system", "content": "Judge."}, {"role": "user", "content": "A note."}]
    with pytest.raises(ConfigError, match=told):
        assess(model, [chat], [1], {}, Decoding("flag", thinking=thinking), KeptAnswers(tmp_path))
