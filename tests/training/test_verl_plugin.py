"""Two runs on one machine exchange weights through sockets of their own; verl's two places are as they were read."""

import ast
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from medserl.run.launch import prepare_environment
from medserl.training.verl_plugin import HOOKS, PREFIX, RUN_TOKEN, own_socket
from tests.training.test_verl_contracts import method_node

ROLLOUT = "workers/rollout/vllm_rollout"


def test_a_name_gets_the_runs_token_once(monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"{PREFIX}01000000-replica-0-rank-1.sock"
    monkeypatch.delenv(RUN_TOKEN, raising=False)
    assert own_socket(name) == name
    monkeypatch.setenv(RUN_TOKEN, "ab12")
    assert own_socket(name) == f"{PREFIX}ab12-01000000-replica-0-rank-1.sock" == own_socket(own_socket(name))
    assert own_socket("tcp://127.0.0.1:5") == "tcp://127.0.0.1:5"
    assert len(own_socket(name).removeprefix("ipc://")) < 107, "a socket's path is at most 107 bytes"


def test_every_start_has_a_token_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    from medserl.config.load import load_config

    monkeypatch.setattr("os.environ", dict(os.environ))
    config = load_config("embedded")
    first, second = prepare_environment(config), prepare_environment(config)
    assert first[RUN_TOKEN] != second[RUN_TOKEN]
    assert "medserl.training.verl_plugin" in first["VERL_USE_EXTERNAL_MODULES"].split(",")
    assert second["VERL_USE_EXTERNAL_MODULES"].count("verl_plugin") == 1


@pytest.mark.parametrize(
    ("file", "method"),
    [("vllm_rollout.py", "ServerAdapter.__init__"), ("utils.py", "vLLMColocateWorkerExtension._get_zmq_handle")],
)
def test_verl_still_names_the_socket_there(file: str, method: str) -> None:
    """Once in the method that is wrapped, with nothing but Ray's job id where the run's token goes."""
    names = [node for node in ast.walk(method_node(f"{ROLLOUT}/{file}", method)) if isinstance(node, ast.JoinedStr)]
    assert [ast.unparse(name)[2:].startswith(PREFIX + "{job_id}-") for name in names] == [True]
    assert f"verl.workers.rollout.vllm_rollout.{file.removesuffix('.py')}" in HOOKS


SCRIPT = """
import asyncio, sys
import ray
import verl.workers.rollout.vllm_rollout.utils as receiver, verl.workers.rollout.vllm_rollout.vllm_rollout as sender
from verl.workers.rollout.router import get_router_handle
from verl.workers.rollout.llm_server import LLMServerClient
from part import Server

def loaded(self):
    import sys
    return [name for name in ("verl", "torch", "part") if name in sys.modules]

async def ask():
    client = LLMServerClient(None, balancer)
    name, server = await client._acquire_server("request")
    return name, await server.answer.remote(), server is (await client._acquire_server("request"))[1]

ray.init(address="local", num_cpus=4, include_dashboard=False, object_store_memory=80_000_000, log_to_driver=False,
         _temp_dir=sys.argv[1])
balancer = get_router_handle({"one": ray.remote(Server).remote()})
print(asyncio.run(ask()), ray.get(balancer.__ray_call__.remote(loaded)))
methods = (sender.ServerAdapter.__init__, receiver.vLLMColocateWorkerExtension._get_zmq_handle)
print([hasattr(method, "__wrapped__") for method in methods])
"""


@pytest.mark.engine
@pytest.mark.timeout(300)
def test_what_a_cpu_run_does_with_them(tmp_path: Path) -> None:
    """Both sides of a weight transfer use the token; the balancer hands servers out and loads nothing for it."""
    from medserl.cpu.environment import cpu_environment

    variables = cpu_environment()
    variables["VERL_USE_EXTERNAL_MODULES"] += ",medserl.training.verl_plugin"
    path = os.pathsep.join([str(tmp_path), *sys.path])
    environment = {**os.environ, **variables, RUN_TOKEN: f"balancer{os.getpid()}", "PYTHONPATH": path}
    (tmp_path / "part.py").write_text("class Server:\n    def answer(self):\n        return 42\n")
    with tempfile.TemporaryDirectory(prefix="mb-", dir="/tmp") as short:  # Ray's sockets in it may take 107 bytes
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, short], env=environment, capture_output=True, text=True, check=False
        )
    said = done.stdout.strip().splitlines()[-2:]
    assert said == ["('one', 42, True) []", "[True, True]"], done.stdout + done.stderr
