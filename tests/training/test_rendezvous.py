"""Where the workers of a run meet."""

from __future__ import annotations

import inspect
import socket
from pathlib import Path
from types import FunctionType, SimpleNamespace

import pytest

from medserl.training.rendezvous import FIRST, LAST, meet_outside_of_outgoing_ports, port_range


def test_no_port_that_the_system_gives_to_outgoing_connections(tmp_path: Path) -> None:
    outgoing = tmp_path / "ip_local_port_range"
    outgoing.write_text("32768\t60999\n")
    ranges = [port_range(outgoing) for _ in range(50)]
    assert all(ports and FIRST <= ports[0] < ports[1] - 100 and ports[1] == LAST + 1 for ports in ranges)
    assert len({tuple(ports) for ports in ranges if ports}) > 10, "runs that start together look in different places"


@pytest.mark.parametrize("text", ["1024\t65000\n", "32000 60999", "", "?"])
def test_a_site_with_other_ports_gets_verls_choice(tmp_path: Path, text: str) -> None:
    outgoing = tmp_path / "ip_local_port_range"
    outgoing.write_text(text)
    assert port_range(outgoing) is None
    assert port_range(tmp_path / "none") is None


def functions_of(kind: type) -> list[FunctionType]:
    return [found for _, found in inspect.getmembers(kind, inspect.isfunction)]


@pytest.mark.engine
def test_verl_chooses_within_the_range() -> None:
    """The trainer makes its workers by that name, with keyword arguments; the port is free and in the range."""
    from verl.single_controller.ray.base import RayWorkerGroup, get_master_addr_port
    from verl.trainer.ppo.v1 import trainer_base

    assert trainer_base.RayWorkerGroup is RayWorkerGroup, "verl names its worker group otherwise"
    made = SimpleNamespace(RayWorkerGroup=lambda **kwargs: kwargs)
    meet_outside_of_outgoing_ports(made)  # type: ignore[arg-type]
    ports = made.RayWorkerGroup(device_name="cpu")["master_port_range"]
    names = {name for function in functions_of(trainer_base.PPOTrainer) for name in function.__code__.co_names}
    assert "RayWorkerGroup" in names, "verl's trainer makes its workers otherwise"
    with socket.socket() as taken:
        taken.bind(("", ports[0]))
        assert ports[0] < int(_port(get_master_addr_port, ports)) < ports[1]
    group = RayWorkerGroup(resource_pool=None, worker_names=[], master_port_range=ports)
    assert group._ray_master_port_range == ports


def _port(remote: object, ports: list[int]) -> str:
    """What verl's function answers, called here instead of in a process of Ray."""
    import ray

    patched = pytest.MonkeyPatch()
    patched.setattr(ray.util, "get_node_ip_address", lambda: "127.0.0.1")
    try:
        return remote._function(ports)[1]  # type: ignore[attr-defined]
    finally:
        patched.undo()
