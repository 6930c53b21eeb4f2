"""What a configuration asks of the machine: a GPU, attention for it, room in a Ray of its own."""

import pytest

from medserl.config.load import load_config
from medserl.errors import ConfigError
from medserl.preflight import devices
from medserl.preflight.devices import check_device, check_ray

NOTES = "medserl.notes.path=notes.jsonl"
ADDRESS = "+ray_kwargs.ray_init.address=10.0.0.1:6379"


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with two GPUs and the packages for them."""
    monkeypatch.setattr(devices, "gpus_here", lambda: 2)
    monkeypatch.setattr(devices, "vllm_is_cpu_build", lambda: False)


def refused(name: str, *overrides: str) -> str:
    with pytest.raises(ConfigError) as error:
        config = load_config(name, overrides)
        check_device(config)
        check_ray(config)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_gpu_configuration_is_refused_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")  # a wish, not a device
    monkeypatch.setattr(devices, "gpus_here", lambda: 0)
    assert "this machine shows no GPU" in refused("embedded_gpu")
    monkeypatch.setattr(devices, "gpus_here", lambda: 1)
    monkeypatch.setattr(devices, "vllm_is_cpu_build", lambda: True)
    assert "packages are those for CPUs" in refused("embedded_gpu")
    check_device(load_config("embedded_gpu", [ADDRESS]))  # the GPUs are the cluster's


@pytest.mark.parametrize(
    ("name", "override"), [("embedded", "trainer.device=cuda"), ("embedded", "medserl.device=cuda")]
)
def test_devices_that_contradict_each_other(name: str, override: str) -> None:
    told = refused(name, override)
    assert "medserl.device is " in told and "trainer.device " in told and "which must be the same" in told


def test_a_configuration_for_cpus_is_named_by_the_device_that_was_given(gpus: None) -> None:
    told = refused("embedded", "trainer.device=cuda", "medserl.device=cuda")
    assert told.startswith("trainer.device: cuda, but the configuration is one for CPUs")


def test_more_gpus_than_there_are(gpus: None) -> None:
    check_device(load_config("embedded_gpu"))
    assert "shows 2 GPUs" in refused("qwen3_4b_1node", NOTES)
    two = "actor_rollout_ref.actor.megatron.tensor_model_parallel_size=2"
    check_device(load_config("embedded_gpu", ["trainer.n_gpus_per_node=2", two]))


@pytest.mark.parametrize(
    "served",
    [
        ["medserl.referee.name=judge"],
        ["medserl.frozen_injector=true", "medserl.train_roles=assessor"],
    ],
)
def test_a_served_model_counts(gpus: None, served: list[str]) -> None:
    """verl would fail after minutes: Total available GPUs 2 is less than total desired GPUs 3."""
    two = ["trainer.n_gpus_per_node=2", "actor_rollout_ref.actor.megatron.tensor_model_parallel_size=2"]
    assert "needs 3" in refused("embedded_gpu", *two, *served)
    check_device(load_config("embedded_gpu", served))


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["ray_kwargs.ray_init.num_gpus=1"], "num_gpus: 1 is less than the 2"),
        (["ray_kwargs.ray_init.num_cpus=7"], "num_cpus: 7 is less than the 8"),
        (["trainer.nnodes=2"], "has one node"),
        (["trainer.n_gpus_per_node=4"], "num_gpus: 2 is less than the 4"),
    ],
)
def test_a_ray_of_its_own_with_too_little_in_it_is_refused(overrides: list[str], told: str) -> None:
    assert told in refused("embedded", *overrides)
    check_ray(load_config("embedded", [*overrides, ADDRESS]))


def test_the_shipped_default_has_room() -> None:
    for overrides in ([], ["medserl.referee.name=judge"]):
        config = load_config("embedded", overrides)
        check_device(config)
        check_ray(config)
