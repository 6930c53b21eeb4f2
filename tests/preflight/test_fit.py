"""Whether a run fits this machine: GPUs as a stand-in nvidia-smi tells, memory as made files of the kernel do."""

import logging
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from medserl.cli import doctor
from medserl.cli.main import main
from medserl.config.load import load_config, load_sft_config
from medserl.errors import ConfigError
from medserl.planning.cpus import bytes_on_cpus
from medserl.planning.job import job_of
from medserl.planning.memory import GIB
from medserl.planning.shapes import shape_of
from medserl.preflight import devices, fit, nvidia
from medserl.preflight.fit import check_memory, gpu_memory, host_memory
from medserl.preflight.node_checks import gpu_checks, host_checks
from tests.shapes import QWEN3_4B

NOTES = "medserl.notes.path=x"


class Machine:
    """A machine whose nvidia-smi says what it is told, and whose memory is as large as it is told."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        monkeypatch.setenv("PATH", str(folder), prepend=":")
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        monkeypatch.setattr(nvidia, "cuda_of_driver", lambda: None)
        monkeypatch.setattr(devices, "cuda_of_driver", lambda: None)
        self.gpus(2)
        self.guests()
        program = folder / "nvidia-smi"
        program.write_text(
            f'#!/bin/sh\ncase "$1" in\n--query-gpu=*) cat {folder}/gpus;;\n'
            f"--query-compute-apps=*) cat {folder}/guests;;\nesac\n"
        )
        program.chmod(0o755)

    def gpus(self, count: int, mib: int = 81559, driver: str = "580.95.05", used: int = 4) -> None:
        rows = [f"{index}, GPU-{index}a, NVIDIA H100 80GB HBM3, {driver}, {mib}, {used}" for index in range(count)]
        (self.folder / "gpus").write_text("\n".join(rows) + "\n")

    def guests(self, *rows: str) -> None:
        (self.folder / "guests").write_text("".join(f"{row}\n" for row in rows))


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    folder = tmp_path / "bin"
    folder.mkdir()
    return Machine(folder, monkeypatch)


def problems(wanted: int = 2, least: float = 0.0) -> str:
    return "; ".join(check.problem for check in gpu_checks(wanted, least=least) if check.problem)


def test_a_driver_that_is_too_old(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not problems()
    machine.gpus(2, driver="570.172.08")
    assert problems() == (
        "driver 570.172.08 is older than 580, which CUDA 13.0 of the pinned packages needs; update it, or install its "
        "cuda-compat package"
    )
    monkeypatch.setattr(nvidia, "cuda_of_driver", lambda: 13000)  # the image's compatibility package
    assert not problems()
    monkeypatch.setattr(nvidia, "cuda_of_driver", lambda: 12080)
    assert "driver 570.172.08 is older" in problems()


def test_a_training_is_refused_by_an_old_driver(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "gpus_here", lambda: 1)
    monkeypatch.setattr(devices, "vllm_is_cpu_build", lambda: False)
    devices.check_device(load_config("embedded_gpu"))
    machine.gpus(1, driver="535.54.03")
    with pytest.raises(ConfigError, match=r"trainer\.device: cuda, but driver 535\.54\.03 is older than 580"):
        devices.check_device(load_config("embedded_gpu"))


def test_a_training_beside_a_foreign_process_says_so(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(devices, "gpus_here", lambda: 1)
    monkeypatch.setattr(devices, "vllm_is_cpu_build", lambda: False)
    monkeypatch.setattr(logging.getLogger("medserl"), "propagate", True)
    devices.check_device(load_config("embedded_gpu"))
    assert not caplog.records
    machine.guests("GPU-1a, 4711, /usr/bin/python3, 20992")
    devices.check_device(load_config("embedded_gpu"))
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("GPU 1 is used by process 4711 (python3, 20.5 GiB); end it, or leave the GPU out")


def test_a_doctor_without_weights_looks_at_the_rollout_too(machine: Machine) -> None:
    """By the model's name: what `medserl train` would refuse by its directory; a judge's GPU counts."""
    given = ["medserl.notes.path=x", "actor_rollout_ref.model.path=Qwen/Qwen3-4B"]
    assert doctor.misfit(load_config("qwen3_4b_1node", given)) is None
    less = [*given, "actor_rollout_ref.rollout.gpu_memory_utilization=0.11"]
    assert "a rollout's KV cache has" in str(doctor.misfit(load_config("qwen3_4b_1node", less)))
    machine.gpus(2, mib=40960)
    assert "GPU 0 (NVIDIA H100 80GB HBM3) has 40 GiB" in str(doctor.misfit(load_config("qwen3_4b_1node", given)))
    judged = load_config("qwen3_4b_1node", [*given, "medserl.referee.name=judge"])
    assert devices.devices_on_node(judged) == 9


def test_a_gpu_that_tells_no_memory_is_not_said_to_have_none(machine: Machine) -> None:
    (machine.folder / "gpus").write_text("0, GPU-0a, NVIDIA GB10, 580.95.05, [N/A], [N/A]\n")
    assert [check.value for check in gpu_checks(1) if check.name == "GPU memory"] == ["?"]


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        (["GPU-1a, 4711, /usr/bin/python3, 20992"], "GPU 1 is used by process 4711 (python3, 20.5 GiB); end it, or"),
        (["GPU-0a, 7, a, 100", "GPU-0a, 8, b, [N/A]"], "GPU 0 is used by process 7 (a, 0.1 GiB), process 8 (b)"),
        (["GPU-9z, 4711, python3, 20992"], ""),  # of a GPU that this job does not have
        ([], ""),
    ],
)
def test_a_foreign_process_on_a_gpu(machine: Machine, rows: list[str], told: str) -> None:
    machine.guests(*rows)
    assert told in problems() if told else not problems()


def test_gpus_that_are_not_visible_are_nobodys_business(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.guests("GPU-1a, 4711, python3, 20992")
    for visible in ("0", "GPU-0a"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert not problems(1)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-1")
    assert "GPU 1 is used" in problems(1)


@pytest.mark.parametrize("answer", ["", "0, GPU-0a\n", "No devices were found\n"])
def test_answers_that_make_no_sense(machine: Machine, answer: str) -> None:
    (machine.folder / "gpus").write_text(answer)
    assert problems(1)
    assert gpu_memory() == (None, "")


def test_doctor_says_it_in_a_sentence_each(
    machine: Machine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.gpus(2, mib=24564, driver="570.86.10")
    machine.guests("GPU-0a, 4711, python3, 1024")
    words = ["--quick", "--config", "qwen3_4b_1gpu", "--run-dir", str(tmp_path), "--prompt-data", "/nowhere"]
    assert main(["doctor", *words, "medserl.device=auto"]) == 1
    told = capsys.readouterr().err
    assert "bad: driver: driver 570.86.10 is older than 580" in told
    assert "bad: GPUs: GPU 0 is used by process 4711 (python3, 1.0 GiB)" in told
    assert "bad: GPU memory: 24 GiB, the run needs about 54" in told  # the model is known by its name


def test_a_run_that_does_not_fit_this_machine(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit, "host_memory", lambda: (1024.0 * GIB, False))
    for name in ("qwen3_4b_1gpu", "qwen3_4b_1node"):
        check_memory(load_config(name, [NOTES]), QWEN3_4B, "m")
    machine.gpus(1, mib=40960)
    with pytest.raises(ConfigError, match=r"an update needs about 54\.\d GiB .*GPU 0 \(NVIDIA H100 80GB HBM3\) has 40"):
        check_memory(load_config("qwen3_4b_1gpu", [NOTES]), QWEN3_4B, "m")
    machine.gpus(1, used=20000)
    with pytest.raises(ConfigError, match=r"a save needs about .*, beside 19\.5 GiB of others, has 60\.12 GiB"):
        check_memory(load_config("qwen3_4b_1gpu", [NOTES]), QWEN3_4B, "m")
    joined = "+ray_kwargs.ray_init.address=10.0.0.1:6379"
    check_memory(load_config("qwen3_4b_1gpu", [NOTES, joined]), QWEN3_4B, "m")


def test_a_host_that_a_checkpoint_does_not_fit(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit, "host_memory", lambda: (128.0 * GIB, True))
    with pytest.raises(ConfigError, match=r"saving a checkpoint takes .* control group allows 128\.0 GiB"):
        check_memory(load_config("qwen3_4b_1gpu", [NOTES]), QWEN3_4B, "m")
    check_memory(load_sft_config("sft_qwen3_4b", [NOTES]), QWEN3_4B, "m")
    monkeypatch.setattr(fit, "host_memory", lambda: (32.0 * GIB, False))
    with pytest.raises(ConfigError, match=r"saving a checkpoint .* this machine has 32\.0 GiB"):
        check_memory(load_sft_config("sft_qwen3_4b", [NOTES]), QWEN3_4B, "m")


def test_a_large_model_on_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_config("embedded")
    monkeypatch.setattr(fit, "host_memory", lambda: (64.0 * GIB, False))
    with pytest.raises(ConfigError, match=r"a run on CPUs needs about \d+\.\d GiB of memory for 4\.02 G parameters"):
        check_memory(config, QWEN3_4B, "m")


SMALL = {
    "architectures": ["LlamaForCausalLM"],
    "num_hidden_layers": 30,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "vocab_size": 49152,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": True,
}
"""SmolLM2-135M's config.json."""
TOKENS = "actor_rollout_ref.actor.ppo_max_token_len_per_gpu"


@pytest.mark.parametrize("name", ["real_cpu", "sft_real_cpu"])
def test_micro_batches_become_small_enough_for_the_machine(
    name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    load, key = (load_sft_config, "data.max_token_len_per_gpu") if name.startswith("sft") else (load_config, TOKENS)
    model = ("model" if name.startswith("sft") else "actor_rollout_ref.model") + ".path=m"
    config = load(name, [NOTES, model, f"{key}=60000"])
    least = OmegaConf.select(config, "data.max_length") or 1152
    job = job_of(config)
    shape = shape_of(SMALL, "m")
    for tokens in (60000, 15000, least):
        needed = sum(bytes_on_cpus(job.with_training(tokens=tokens), shape).values())
        monkeypatch.setattr(fit, "host_memory", lambda needed=needed: (1.03 * needed + GIB, False))
        check_memory(config, SMALL, "m")
        assert OmegaConf.select(config, key) == tokens
        assert (f"{key} is {tokens} instead of 60000" in caplog.text) == (tokens != 60000)
        caplog.clear()
        OmegaConf.update(config, key, 60000)
    monkeypatch.setattr(fit, "host_memory", lambda: (0.9 * needed, False))
    with pytest.raises(ConfigError, match=r"needs about .* for 0\.13 G parameters .* shorter prompts"):
        check_memory(config, SMALL, "m", ["trainer.n_gpus_per_node"])  # so many workers are wanted
    assert OmegaConf.select(config, key) == 60000 and config.trainer.n_gpus_per_node == 2


@pytest.mark.parametrize("name", ["real_cpu", "sft_real_cpu"])
def test_one_worker_trains_where_two_do_not_fit(
    name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    load, model = (load_sft_config, "model") if name.startswith("sft") else (load_config, "actor_rollout_ref.model")
    config = load(name, [NOTES, f"{model}.path=m"])
    shape = shape_of(SMALL, "m")
    least = OmegaConf.select(config, "data.max_length") or 1152
    two = sum(bytes_on_cpus(job_of(config).with_training(tokens=least), shape).values())
    monkeypatch.setattr(fit, "host_memory", lambda: (0.9 * two, False))
    check_memory(config, SMALL, "m")
    one = job_of(config)
    assert (one.training.gpus_per_node, one.training.tp, one.training.pp, one.training.dp) == (1, 1, 1, 1)
    assert "one worker trains: trainer.n_gpus_per_node=1" in caplog.text
    assert sum(bytes_on_cpus(one, shape).values()) <= 0.9 * two
    changes = fit.ONE_SUPERVISED if name.startswith("sft") else fit.ONE_WORKER
    said = load(name, [NOTES, f"{model}.path=m", *(f"{key}={value}" for key, value in changes.items())])
    fit._set_tokens(said, one.training.tokens, 0, "")
    assert config == said  # all that follows from these keys follows here
    monkeypatch.setattr(fit, "host_memory", lambda: (0.3 * two, False))
    with pytest.raises(ConfigError, match="a run on CPUs needs about"):
        check_memory(config, SMALL, "m")


def test_rows_that_are_counted_stay_as_many(monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_config("embedded")
    monkeypatch.setattr(fit, "host_memory", lambda: (1.0 * GIB, False))
    with pytest.raises(ConfigError, match="a run on CPUs needs about"):
        check_memory(config, SMALL, "m")


@pytest.mark.parametrize(
    ("group", "files", "expected"),
    [
        ("0::/", {"memory.max": "max"}, (64 * GIB, False)),
        ("0::/a/b", {"a/memory.max": f"{8 * GIB}", "a/b/memory.max": "max"}, (8 * GIB, True)),
        ("0::/a", {"a/memory.max": f"{8 * GIB}", "memory.max": f"{4 * GIB}"}, (4 * GIB, True)),
        ("0::/gone/from/here", {"memory.max": f"{6 * GIB}"}, (6 * GIB, True)),  # a container's view
        (
            "9:cpu:/x\n4:memory:/slurm/job_7",
            {"memory/slurm/job_7/memory.limit_in_bytes": f"{2 * GIB}"},
            (2 * GIB, True),
        ),
        ("4:memory:/x", {"memory/x/memory.limit_in_bytes": "9223372036854771712"}, (64 * GIB, False)),
        ("0::/", {"memory.max": f"{128 * GIB}"}, (64 * GIB, False)),
        (None, {}, (64 * GIB, False)),
    ],
)
def test_memory_of_a_control_group(
    tmp_path: Path, group: str | None, files: dict[str, str], expected: tuple[float, bool]
) -> None:
    proc, groups = tmp_path / "proc", tmp_path / "cgroup"
    (proc / "self").mkdir(parents=True)
    (proc / "meminfo").write_text(f"MemTotal: {64 * 2**20} kB\nMemFree: 1 kB\n")
    if group is not None:
        (proc / "self" / "cgroup").write_text(group + "\n")
    for name, text in files.items():
        (groups / name).parent.mkdir(parents=True, exist_ok=True)
        (groups / name).write_text(text + "\n")
    assert host_memory(proc, groups) == expected


def test_the_preflight_of_a_node_says_it_too(tmp_path: Path) -> None:
    (memory,) = [check for check in host_checks(tmp_path, least=1e15) if check.name == "memory"]
    assert "a checkpoint takes about 931323 GiB of memory" in str(memory.problem)
    (memory,) = [check for check in host_checks(tmp_path, least=1.0) if check.name == "memory"]
    assert memory.problem is None
