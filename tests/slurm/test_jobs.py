"""`medserl slurm render` and `submit`: the arithmetic, what is refused, and the script that comes out."""

import json
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medserl.cli.main import main
from medserl.errors import ConfigError
from medserl.slurm.request import directives, launchers_dir, make_request, seconds_of
from medserl.slurm.sbatch_options import GPU_OPTIONS, directive, memory_per_node
from tests.shapes import QWEN3_4B

PIPELINE = (
    "actor_rollout_ref.actor.megatron.tensor_model_parallel_size=1",
    "actor_rollout_ref.actor.megatron.pipeline_model_parallel_size=2",
    "actor_rollout_ref.rollout.tensor_model_parallel_size=1",
)


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No settings of whoever runs the tests."""
    for name in ("MEDSERL_SITE", "MEDSERL_CONFIG", "MEDSERL_GPUS_PER_NODE", "MEDSERL_RAY_CPUS", "MEDSERL_RUN_DIR"):
        monkeypatch.delenv(name, raising=False)
    site = tmp_path / "site.sh"
    site.write_text("")
    monkeypatch.setenv("MEDSERL_SITE", str(site))


@pytest.fixture
def site(bare: None, tmp_path: Path) -> Path:
    return tmp_path / "site.sh"


@pytest.fixture
def model(tmp_path: Path) -> str:
    """A directory with Qwen3-4B's shape and nothing else that is real; the override that names it."""
    folder = tmp_path / "Qwen3-4B"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(QWEN3_4B))
    for name in ("tokenizer.json", "model.safetensors"):
        (folder / name).touch()
    (tmp_path / "notes.jsonl").touch()
    return f"actor_rollout_ref.model.path={folder}"


def render(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = main(["slurm", "render", *words])
    shown = capsys.readouterr()
    return code, shown.out, shown.err


def big(tmp_path: Path, model: str, *words: str) -> list[str]:
    """A job of the shipped configuration for several nodes."""
    return ["train_multinode", "--prompt-data", str(tmp_path / "notes.jsonl"), model, *words]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 5400), ("1:30", 90), ("24:00:00", 86400), ("2-0", 172800), ("1-12:30", 131400), ("1-00:00:01", 86401)],
)
def test_times_of_slurm(text: str, seconds: int) -> None:
    assert seconds_of(text) == seconds


@given(st.integers(0, 30), st.integers(0, 23), st.integers(0, 59), st.integers(0, 59))
def test_long_times(days: int, hours: int, minutes: int, seconds: int) -> None:
    expected = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    assert seconds_of(f"{days}-{hours:02}:{minutes:02}:{seconds:02}") == expected


def test_no_time_is_no_limit() -> None:
    assert seconds_of(None) is None
    assert seconds_of("UNLIMITED") is None
    with pytest.raises(ConfigError, match="is not a time in Slurm's format"):
        seconds_of("tomorrow")


def test_arithmetic_of_the_shipped_configuration(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, model: str
) -> None:
    code, out, err = render(capsys, *big(tmp_path, model))
    assert code == 0, err
    assert "2 nodes x 8 GPUs = 16 = TP 2 x PP 2 x DP 4; vLLM TP 1, 16 engines" in out
    assert "mini-batches of 32 notes x 2 trajectories = 64, 16 on each of 4 replicas" in out
    assert "4.02 G parameters" in out
    assert "limit 24 h, told to save 15 min before it" in out
    assert "--nodes=2 --gpus-per-node=8 --cpus-per-task=64 --mem=0 --time=24:00:00" in out


def test_overrides_of_train_count(capsys: pytest.CaptureFixture[str], tmp_path: Path, model: str) -> None:
    overrides = ["actor_rollout_ref.actor.megatron.pipeline_model_parallel_size=4", "--rollout-batch-size", "256"]
    code, out, err = render(capsys, "--nodes", "4", "--gpus-per-node=4", *big(tmp_path, model, *overrides))
    assert code == 0, err
    assert "4 nodes x 4 GPUs = 16 = TP 2 x PP 4 x DP 2" in out
    assert "#SBATCH --nodes=4" in out
    assert "#SBATCH --gpus-per-node=4" in out


@pytest.mark.parametrize(
    ("options", "overrides", "sentence"),
    [
        (["--nodes=3"], [], "cannot be divided by 6 data-parallel replicas"),
        (["--gpus-per-node=3"], [], "6 workers cannot be divided by TP 2 x PP 2 x CP 1 = 4"),
        ([], ["trainer.nnodes=4"], "trainer.nnodes: 4, but the job has 2"),
        (["--cpus-per-task=16"], [], "16 logical CPUs on a node are less than the 24"),
        (["--time=10"], [], "10 min is not more than the 15 min before the limit"),
        (["--time=soon"], [], "is not a time in Slurm's format"),
        (["--nodes=2-4"], [], "--nodes=2-4: give one number"),
        (["--gpus-per-node=0"], [], "--gpus-per-node: 0"),
        (["--gpus-per-node=-8"], [], "--gpus-per-node=-8: give 0 or more"),
        (["--nodes=0"], [], "--nodes=0: give 1 or more"),
        (["--sbatch=--signal=B:USR1@soon"], [], "'soon' is not a number of seconds"),
        (["--account=a\ntouch pwned"], [], "line breaks and other control characters"),
        (["--sbatch=--comment=a\nb"], [], "line breaks and other control characters"),
        (["--sbatch=--gpus=7"], [], "cannot be divided by 2 nodes"),
        ([], ["actor_rollout_ref.actor.megatron.tensor_model_parallel_size=two"], "'two' is not a whole number"),
        ([], ["actor_rollout_ref.rollout.gpu_memory_utilization=lots"], "'lots' is not a number"),
        (["--sbatch", "nice"], [], "write it as --name=value"),
        ([], ["actor_rollout_ref.actor.ppo_mini_batch_sise=3"], "did you mean"),
        ([], ["--prompt-data", "/nowhere.jsonl"], "notes /nowhere.jsonl: is not there"),
        ([], ["actor_rollout_ref.model.path=Qwen/Qwen3-4B"], "give a local model directory"),
    ],
)
def test_what_cannot_work_is_refused_in_one_sentence(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    model: str,
    options: list[str],
    overrides: list[str],
    sentence: str,
) -> None:
    code, out, err = render(capsys, *options, *big(tmp_path, model, *overrides))
    assert code == 2
    assert sentence in err
    assert err.count("\n") == 1
    assert not out


def test_too_little_gpu_memory_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, model: str, site: Path
) -> None:
    site.write_text("MEDSERL_GPU_MEMORY_GB=24\n")
    code, _, err = render(capsys, *big(tmp_path, model))
    assert code == 2
    assert "MEDSERL_GPU_MEMORY_GB says 24" in err
    site.write_text("MEDSERL_GPU_MEMORY_GB=80\n")
    assert render(capsys, *big(tmp_path, model))[0] == 0


def test_single_node_and_evaluation(capsys: pytest.CaptureFixture[str], tmp_path: Path, model: str) -> None:
    words = big(tmp_path, model)[1:]
    code, out, err = render(capsys, "train_singlenode", *words)
    assert code == 0, err
    assert "1 node x 8 GPUs = 8 = TP 2 x PP 1 x DP 4" in out
    code, _, err = render(capsys, "--nodes=2", "train_singlenode", *words)
    assert (code, "submit train_multinode" in err) == (2, True)
    evaluate = ["evaluate", "--model", model.partition("=")[2], "--data", str(tmp_path / "notes.jsonl")]
    assert render(capsys, *evaluate)[0] == 0
    key = "actor_rollout_ref.rollout.tensor_model_parallel_size"
    for more in ([f"{key}=4"], [f"++{key}=4"]):
        code, _, err = render(capsys, *evaluate, *more)
        assert (code, "is more than the job's 1 GPU;" in err) == (2, True)
    code, _, err = render(capsys, *evaluate, f"{key}=two")
    assert (code, f"{key}: 'two' is not a whole number" in err) == (2, True)
    for words in (["--model", "/nowhere"], []):
        code, _, err = render(capsys, "evaluate", *words, "--data", "ward:test")
        assert (code, "--model" in err, err.count("\n")) == (2, True, 1)


def test_speed_so_far_tells_what_fits_into_an_attempt(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, model: str
) -> None:
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    (run_dir / "metrics.jsonl").write_text('{"round": 1, "timing_s/step": 600}\n{"round": 2, "timing_s/step": 600}\n')
    _, out, _ = render(capsys, *big(tmp_path, model, "--run-dir", str(run_dir)))
    assert "rounds took 600 s so far, about 142 fit into one attempt" in out


def test_site_file_reaches_sbatch_and_the_command_line_beats_it(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, model: str, site: Path
) -> None:
    site.write_text(
        "MEDSERL_ACCOUNT=clinic\nMEDSERL_PARTITION=gpu\n"
        "MEDSERL_SBATCH_OPTIONS='--constraint=h100 --time=48:00:00 --contiguous \"--comment=two words\"'\n"
    )
    _, out, _ = render(capsys, "--partition", "fast", *big(tmp_path, model))
    options = directives_of(out)
    assert options["account"] == "clinic"
    assert options["partition"] == "fast"
    assert options["constraint"] == "h100"
    assert options["time"] == "48:00:00"
    assert options["contiguous"] is None
    assert options["comment"] == '"two words"'
    command = next(line for line in out.splitlines() if "sbatch --parsable" in line)
    for word in ("--account=clinic", "--partition=fast", "--constraint=h100", "--time=48:00:00", "--contiguous"):
        assert word in command


def directives_of(text: str) -> dict[str, str | None]:
    lines = [line[8:].strip() for line in text.splitlines() if line.startswith("#SBATCH ")]
    return {line[2:].split("=", 1)[0]: line.split("=", 1)[1] if "=" in line else None for line in lines}


def test_rendered_script_is_whole(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was rendered parses, carries the settings and arguments, and keeps the launcher's own lines."""
    monkeypatch.setenv("MEDSERL_GPUS_PER_NODE", "1")
    monkeypatch.setenv("MEDSERL_CONFIG", "embedded")
    monkeypatch.setenv("MEDSERL_RUN_DIR", "/shared/it's a run")
    code, out, err = render(capsys, "train_multinode", *PIPELINE, "medserl.seed=3")
    assert code == 0, err
    script = tmp_path / "job.sh"
    script.write_text(out)
    done = subprocess.run(["bash", "-n", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "export MEDSERL_CONFIG=embedded" in out
    assert "export MEDSERL_GPUS_PER_NODE=1" in out
    assert """export MEDSERL_RUN_DIR='/shared/it'"'"'s a run'""" in out
    assert "set -- " + " ".join((*PIPELINE, "medserl.seed=3")) in out
    body = (launchers_dir() / "train_multinode.sh").read_text().split("set -euo pipefail\n")[1]
    assert out.endswith(body)


def test_dry_run_submits_nothing_and_submit_passes_options_on(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sbatch = tmp_path / "bin" / "sbatch"
    sbatch.parent.mkdir()
    sbatch.write_text(
        f'#!/bin/sh\necho "$@" > {tmp_path}/submitted\nprintenv MEDSERL_LAUNCHER >> {tmp_path}/submitted\necho 42\n'
    )
    sbatch.chmod(0o755)
    monkeypatch.setenv("PATH", str(sbatch.parent), prepend=":")
    assert main(["slurm", "submit", "--dry-run", *big(tmp_path, model)]) == 0
    assert not (tmp_path / "submitted").exists()
    assert main(["slurm", "submit", "--nodes=2", "--account", "clinic", *big(tmp_path, model)]) == 0
    assert "submitted job 42; its output: slurm-medserl-42.out" in capsys.readouterr().out
    words, launcher = (tmp_path / "submitted").read_text().splitlines()
    script = f"{launcher}/train_multinode.sh --prompt-data {tmp_path}/notes.jsonl {model}"
    assert words == f"--parsable --nodes=2 --account=clinic {script}"


def test_refusal_of_sbatch_is_one_sentence(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sbatch = tmp_path / "bin" / "sbatch"
    sbatch.parent.mkdir()
    sbatch.write_text("#!/bin/sh\necho 'sbatch: error: invalid account' >&2\nexit 1\n")
    sbatch.chmod(0o755)
    monkeypatch.setenv("PATH", str(sbatch.parent), prepend=":")
    assert main(["slurm", "submit", *big(tmp_path, model)]) == 2
    assert "sbatch refused the job: sbatch: error: invalid account" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["train_multinode", "train_singlenode", "evaluate", "preflight"])
def test_launchers_append_their_output_and_say_what_a_site_must_not_edit(name: str) -> None:
    options = directives(launchers_dir() / f"{name}.sh")
    assert not {"account", "partition", "qos"} & options.keys()
    if name.startswith("train"):
        assert options["open-mode"] == "append"
        assert "requeue" in options
        assert str(options["signal"]).startswith("B:USR1@")


def test_a_rollout_that_does_not_fit_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, model: str, site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two GPUs keep 40 GB of training, so that 60 % for vLLM fail at the first wake-up; an update alone would fit."""
    site.write_text("MEDSERL_GPU_MEMORY_GB=80\n")
    monkeypatch.setenv("MEDSERL_CONFIG", "qwen3_4b_1node")
    job = ["--nodes=1", "--gpus-per-node=2", *big(tmp_path, model)]
    code, out, err = render(capsys, *job)
    assert code == 2 and not out
    assert "a rollout needs about" in err and "gpu_memory_utilization" in err and err.count("\n") == 1
    code, out, err = render(capsys, *job, "actor_rollout_ref.rollout.gpu_memory_utilization=0.35")
    assert code == 0, err
    assert "of the fullest GPU in an update" in out and "GiB in its rollout phase" in out
    assert "134.9 GiB of a node's memory at a save, 89.9 GiB at a load" in out


def test_a_served_judge_needs_a_gpu_beside_the_training(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDSERL_CONFIG", "qwen3_4b_1node")
    judge = [*big(tmp_path, model), "medserl.second_referee.name=null", "medserl.referee.name=judge"]
    code, _, err = render(capsys, "--nodes=1", "--gpus-per-node=8", *judge)
    assert code == 2
    assert "needs 1 GPU in addition to the training's" in err and "trainer.n_gpus_per_node=4" in err
    four = [
        *judge,
        "trainer.n_gpus_per_node=4",
        "actor_rollout_ref.actor.ppo_mini_batch_size=16",
    ]
    code, out, err = render(capsys, "--nodes=1", "--gpus-per-node=8", *four)
    assert code == 0, err
    assert "1 node x 4 GPUs = 4 = TP 2 x PP 1 x DP 2" in out and "1 GPU for a frozen model" in out
    code, _, err = render(capsys, "--nodes=1", "--gpus-per-node=8", *big(tmp_path, model), "trainer.n_gpus_per_node=4")
    assert code == 2 and "trainer.n_gpus_per_node: 4, but the job has 8" in err


# -------------------------------------------------------------------------------------------------- sbatch's options


@pytest.mark.parametrize(
    ("option", "gpus"),
    [
        ("--gres=gpu:2", 2),
        ("--gres=gpu:a100:2", 2),
        ("--gres=gpu:a100:4(S:0-1),lscratch:100", 4),
        ("--gres=gpu", 1),
        ("--gres=gpu:a100:1,gpu:h100:1", 2),
        ("--gpus=2", 2),
        ("--gpus=a100:2", 2),
        ("--gpus-per-task=2", 2),
        ("--gpus-per-node=a100:1,h100:1", 2),
        ("--tres-per-task=cpu=4,gres/gpu=2", 2),
        ("--tres-per-node=gres/gpu:a100:2", 2),
    ],
)
def test_another_way_to_ask_for_gpus_replaces_the_scripts(option: str, gpus: int) -> None:
    request = make_request("train_singlenode", {}, [option], [])
    assert request.gpus_per_node == gpus
    assert [f"--{name}={value}" for name, value in request.options.items() if name in GPU_OPTIONS] == [option]


def test_other_resources_stand_beside_the_gpus() -> None:
    request = make_request("train_singlenode", {}, ["--gres=lscratch:100"], [])
    assert (request.gpus_per_node, request.options["gres"]) == (8, "lscratch:100")
    request = make_request("train_singlenode", {"gpus-per-node": "4"}, ["--gres=gpu:2,lscratch:100"], [])
    assert (request.gpus_per_node, request.options["gres"]) == (4, "lscratch:100")


def test_memory_replaces_memory_and_options_of_the_script_can_be_left_out(site: Path) -> None:
    site.write_text("MEDSERL_SBATCH_OPTIONS='--no-exclusive --mem-per-cpu=4G'\n")
    request = make_request("train_singlenode", {}, ["--no-requeue"], [])
    assert not {"exclusive", "mem", "requeue", "no-exclusive"} & request.options.keys()
    assert request.given == ("--mem-per-cpu=4G", "--no-requeue")


def test_what_replaces_the_scripts_own_is_submitted_as_resolved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sbatch = tmp_path / "bin" / "sbatch"
    sbatch.parent.mkdir()
    sbatch.write_text(
        f'#!/bin/sh\necho "$@" > {tmp_path}/words\nenv > {tmp_path}/seen\ncat > {tmp_path}/job\necho 42\n'
    )
    sbatch.chmod(0o755)
    monkeypatch.setenv("PATH", str(sbatch.parent), prepend=":")
    outer = {"SLURM_JOB_ID": "99", "SLURM_CPU_BIND": "mask_cpu:0x1", "SLURM_MEM_PER_CPU": "4096", "SLURM_CONF": "/c"}
    for name, value in {**outer, "MEDSERL_DEADLINE": "1", "MEDSERL_CONFIG": "embedded", "SBATCH_GRES": "gpu:2"}.items():
        monkeypatch.setenv(name, value)
    assert main(["slurm", "submit", "--nodes", "1", "train_multinode", "medserl.seed=3"]) == 0, capsys.readouterr().err
    options = directives_of((tmp_path / "job").read_text())
    assert (options["gres"], "gpus-per-node" in options) == ("gpu:2", False)
    assert "set -- medserl.seed=3" in (tmp_path / "job").read_text()
    assert (tmp_path / "words").read_text() == "--parsable --gres=gpu:2 --nodes=1\n"
    names = {line.partition("=")[0] for line in (tmp_path / "seen").read_text().splitlines()}
    assert {name for name in names if name.startswith(("SLURM_", "SBATCH_", "MEDSERL_DEADLINE"))} == {"SLURM_CONF"}


@given(st.text(st.characters(blacklist_categories=("C", "Z"), whitelist_characters=" "), min_size=1))
def test_values_survive_sbatchs_reading_of_a_script(value: str) -> None:
    line = directive("comment", value)
    assert "\n" not in line
    assert read_as_sbatch(line.removeprefix("#SBATCH ")) == [f"--comment={value}"]


def read_as_sbatch(line: str) -> list[str]:
    """Words as sbatch splits a line: a backslash takes the next one as it is, quotes keep blanks, # ends it."""
    words, word, quote, escaped = [], "", "", False
    for character in line:
        if escaped:
            word, escaped = word + character, False
        elif character == "\\":
            escaped = True
        elif quote:
            word, quote = (word, "") if character == quote else (word + character, quote)
        elif character in "\"'":
            quote = character
        elif character == "#":
            break
        elif character == " ":
            words, word = [*words, word], ""
        else:
            word += character
    return [*words, word]


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("MEDSERL_RAY_CPUS", "many", "MEDSERL_RAY_CPUS=many: give one number"),
        ("MEDSERL_GPUS_PER_NODE", "-1", "MEDSERL_GPUS_PER_NODE=-1: give 1 or more"),
        ("MEDSERL_GPU_MEMORY_GB", "lots", "MEDSERL_GPU_MEMORY_GB=lots: is not a size"),
        ("MEDSERL_LAUNCHER", "/nowhere", "no launchers (lib.sh) in /nowhere"),
        ("MEDSERL_SBATCH_OPTIONS", "'--a", "close the quotes"),
    ],
)
def test_settings_that_are_none_are_one_sentence(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    model: str,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    value: str,
    sentence: str,
) -> None:
    monkeypatch.setenv(name, value)
    code, _, err = render(capsys, *big(tmp_path, model))
    assert (code, sentence in err, err.count("\n")) == (2, True, 1)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (b"MEDSERL_RUNTIME=none\r\n", "has Windows line endings; run: sed -i"),
        (b"# ours\r\n\r\n", "has Windows line endings; run: sed -i"),
        (b"\xef\xbb\xbfMEDSERL_ACCOUNT=clinic\n", "byte order mark"),
        (b"exit 3\n", "it ends the shell"),
        (b"MEDSERL_ACCOUNT=$NOT_SET_ANYWHERE\n", "it ends the shell"),
        (b"false\n", "its last command failed"),
    ],
)
def test_site_file_that_is_no_good_is_named(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, model: str, site: Path, text: bytes, sentence: str
) -> None:
    site.write_bytes(text)
    code, _, err = render(capsys, *big(tmp_path, model))
    assert (code, str(site) in err, sentence in err, err.count("\n")) == (2, True, True, 1)


def test_line_breaks_of_arguments_stay_in_comments(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """The command that would submit stands in the script as a comment, an argument of several lines with it."""
    words = ["--nodes=1", "evaluate", "--model", "builtin:ward", "--data", "ward:test", "--out", "a\ntouch pwned"]
    code, out, err = render(capsys, *words)
    assert code == 0, err
    done = subprocess.run(["bash", "-c", out.split("# sbatch runs a copy")[0]], cwd=tmp_path, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize(
    ("asked", "gibibytes"),
    [
        ({"mem": "500G"}, 500),
        ({"mem": "2T"}, 2048),
        ({"mem": "2048"}, 2),
        ({"mem": "0"}, None),
        ({}, None),
        ({"mem-per-gpu": "64GB", "gpus-per-node": "8"}, 512),
        ({"mem-per-cpu": "4G", "cpus-per-task": "64"}, 256),
    ],
)
def test_memory_that_a_job_asks_for(asked: dict[str, str | None], gibibytes: int | None) -> None:
    assert memory_per_node(asked) == (None if gibibytes is None else gibibytes * 2**30)
    with pytest.raises(ConfigError, match="--mem=lots: is not a size in Slurm's format"):
        memory_per_node({"mem": "lots"})


def test_a_checkpoint_must_fit_the_memory_that_is_asked_for(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, model: str
) -> None:
    code, out, err = render(capsys, "--mem=128G", *big(tmp_path, model))
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "loading a checkpoint takes about" in err and "--mem asks for 128.0 GiB" in err
    code, out, err = render(capsys, "--mem=512G", *big(tmp_path, model))
    assert code == 0 and "of a node's memory at a save" in out, err
