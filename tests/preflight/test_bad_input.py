"""Whatever a user can get wrong: one sentence, exit code 2, nothing started, nothing written."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from medserl.cli import main
from medserl.errors import EXIT_OK, EXIT_USAGE
from medserl.ward import model_dir, ward_notes

pytestmark = pytest.mark.engine  # seconds each: too long for the quick tests

Refused = Callable[..., str]


@pytest.fixture
def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Refused:
    """Runs ``medserl train`` (not even a dry run: it must stop before anything starts) and returns the
    sentence."""

    def run(*arguments: str) -> str:
        before = sorted(tmp_path.rglob("*"))
        run_dir = [] if "--run-dir" in arguments else ["--run-dir", str(tmp_path / "run")]
        assert main(["train", *run_dir, *arguments]) == EXIT_USAGE
        captured = capsys.readouterr()
        assert captured.out == ""
        first, *more = captured.err.strip().splitlines()
        assert first.startswith("medserl: error: ")
        if more:  # what follows from a problem is one too: a line each
            assert first == f"medserl: error: {len(more)} things stand in the way of a start:"
            assert all(line.startswith(f"  {number}. ") for number, line in enumerate(more, 1))
        assert sorted(tmp_path.rglob("*")) == before
        return captured.err

    return run


def notes_file(path: Path, count: int = 40) -> Path:
    rows = [
        {"note_id": n.note_id, "correct_note": n.text, "incorrect_note": n.error_text}
        for n in ward_notes("train", count, 3)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_good_configuration_passes_the_dry_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = notes_file(tmp_path / "notes.jsonl")
    run = tmp_path / "run"
    assert main(["train", "--prompt-data", str(data), "--run-dir", str(run), "--dry-run"]) == EXIT_OK
    assert "nothing started" in capsys.readouterr().out
    assert not run.exists()


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("gone.jsonl", None, "gone.jsonl"),
        ("empty.jsonl", b"", "empty"),
        ("not.parquet", b"note_id,text\n1,x\n", "not.parquet"),
        ("bad.jsonl", b'{"note_id": "a", "text": "One note."}\n{oops\n', "2"),
        ("blank.jsonl", b'{"note_id": "a", "text": "  "}\n', "row 1: holds no usable note"),
        (
            "chat.jsonl",
            b'{"note_id": "a", "text": "Well.<|im_end|> Ill."}\n',
            "'text' holds the chat token <|im_end|>",
        ),
        ("noid.jsonl", b'{"text": "One note."}\n', "note_id"),
        ("notes.docx", b"x", "notes.docx"),
    ],
)
def test_unusable_data_files(refused: Refused, tmp_path: Path, name: str, content: bytes | None, told: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    message = refused("--prompt-data", str(tmp_path / name))
    assert name in message
    assert told in message


def test_fewer_notes_than_a_round(refused: Refused, tmp_path: Path) -> None:
    data = notes_file(tmp_path / "notes.jsonl", 10)
    assert "10 notes are fewer than" in refused("--prompt-data", str(data))


def test_notes_without_gold_labels_when_a_number_of_them_is_asked_for(refused: Refused, tmp_path: Path) -> None:
    rows = [{"note_id": n.note_id, "text": n.text} for n in ward_notes("train", 40, 3)]
    (tmp_path / "notes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    message = refused("--prompt-data", str(tmp_path / "notes.jsonl"), "medserl.labelled_batch_size=8")
    assert "medserl.labelled_batch_size=0" in message


def test_the_readmes_command_for_notes_of_ones_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """No gold error anywhere: the labelled share falls to 0, and a line says so."""
    rows = [{"note_id": f"n{i}", "text": f"Patient {i} has a cough. He takes aspirin."} for i in range(70)]
    (tmp_path / "notes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = ["train", "--prompt-data", str(tmp_path / "notes.jsonl"), "--rollout-batch-size", "64"]
    command += ["--model", "builtin:ward"]  # on purpose: the package has no other
    assert main([*command, "--max-epochs", "3", "--run-dir", str(tmp_path / "run"), "--dry-run"]) == EXIT_OK
    out = capsys.readouterr().out
    assert "no gold labels" in out and "of 64 notes" in out
    assert "medserl.labelled_share is 0 instead of 0.5" in caplog.text
    assert not (tmp_path / "run").exists()


def test_a_special_token_of_the_models_own_tokenizer_in_a_note(refused: Refused, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(model_dir(), model)
    tokenizer = json.loads((model / "tokenizer.json").read_text())
    added = next(token for token in tokenizer["added_tokens"] if token["content"] == "<|endoftext|>")
    added["content"] = "[TURN]"
    tokenizer["model"]["vocab"]["[TURN]"] = tokenizer["model"]["vocab"].pop("<|endoftext|>", added["id"])
    (model / "tokenizer.json").write_text(json.dumps(tokenizer))
    configured = (model / "tokenizer_config.json").read_text().replace("<|endoftext|>", "[TURN]")
    (model / "tokenizer_config.json").write_text(configured)
    rows = [{"note_id": f"n{i}", "text": f"Patient {i} has a cough. He is well."} for i in range(40)]
    rows[7]["text"] = "He has a cough.[TURN]He is well."
    (tmp_path / "notes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = f"actor_rollout_ref.model.path={model}"
    message = refused("--prompt-data", str(tmp_path / "notes.jsonl"), path, "medserl.labelled_share=0")
    assert "note n7: holds [TURN], a special token" in message


def test_a_prompt_longer_than_configured_names_the_note(refused: Refused) -> None:
    message = refused("data.max_prompt_length=40")
    assert "data.max_prompt_length is 40" in message
    assert ward_notes("train", 1, 7)[0].note_id.rsplit("-", 1)[0] in message


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--rollout-batch-size", "1"], "less than 2"),
        (["trainer.n_gpus_per_node=3"], "cannot be divided"),
        (["actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu=16"], "ref.log_prob_micro_batch_size_per_gpu 16"),
        (
            [
                "actor_rollout_ref.actor.megatron.pipeline_model_parallel_size=3",
                "trainer.n_gpus_per_node=6",
                "actor_rollout_ref.actor.megatron.tensor_model_parallel_size=2",
            ],
            "num_hidden_layers",
        ),
        (["medserl.vcff.min_jaccard=0.5"], "medserl.vcf"),
        (["--config", "nowhere"], "known:"),
        (["actor_rollout_ref.model.path=/nonexistent"], "is not a directory"),
        (["--vcf-min-jaccard", "0.9", "--vcf-max-jaccard", "0.8"], "min_jaccard"),
    ],
)
def test_sizes_and_names(refused: Refused, arguments: list[str], told: str) -> None:
    assert told in refused(*arguments)


@pytest.mark.parametrize("harm", ["no tokenizer", "no weights", "no config", "other architecture", "config no JSON"])
def test_unusable_model_directories(refused: Refused, tmp_path: Path, harm: str) -> None:
    model = tmp_path / "model"
    shutil.copytree(model_dir(), model)
    told = {
        "no tokenizer": "tokenizer",
        "no weights": "weights",
        "no config": "config.json",
        "other architecture": "LlamaForCausalLM",
        "config no JSON": "not JSON",
    }[harm]
    if harm == "no tokenizer":
        (model / "tokenizer.json").unlink()
    elif harm == "no weights":
        (model / "model.safetensors").unlink()
    elif harm == "no config":
        (model / "config.json").unlink()
    elif harm == "config no JSON":
        (model / "config.json").write_text("{")
    else:
        config = json.loads((model / "config.json").read_text())
        (model / "config.json").write_text(json.dumps({**config, "architectures": ["LlamaForCausalLM"]}))
    message = refused(f"actor_rollout_ref.model.path={model}")
    assert told in message
    assert str(model) in message


def test_a_run_directory_of_something_else(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("x")
    assert "MedSeRL did not make it" in refused("--run-dir", str(tmp_path / "thesis"))


def test_a_misspelt_option_is_no_override(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["train", "--rolout-batch-size", "3"])
    assert stop.value.code == EXIT_USAGE
    assert "--rolout-batch-size" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["export", "run", "--out", "there"], ["ablate", "evidence", "--out", "there"]])
def test_commands_without_overrides_refuse_them(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command, "trainer.nnodes=2"]) == EXIT_USAGE
    assert "'trainer.nnodes=2'" in capsys.readouterr().err
