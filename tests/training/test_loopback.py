"""Torch's rendezvous store, for real: where it listens with our change and without."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.engine
ROOT = Path(__file__).parents[2]
# Rank 0 of a group of one starts the store; /proc/self/net/tcp* has the addresses that this process listens on.
CODE = """
import os, socket, sys
sys.path.insert(0, {root!r})
import torch.distributed as dist
module = sys.modules['torch.distributed.rendezvous']  # the function of that name hides it
from medserl.loopback import keep_store_on_loopback
keep_store_on_loopback(module)
keep_store_on_loopback(module)  # once is enough
with socket.socket() as free:
    free.bind(("127.0.0.1", 0)); port = free.getsockname()[1]
os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK="0", WORLD_SIZE="1")
dist.init_process_group("gloo")
dist.barrier()
for name in ("tcp", "tcp6"):
    for line in open(f"/proc/self/net/{{name}}").readlines()[1:]:
        address, state = line.split()[1], line.split()[3]
        if state == "0A" and int(address.split(":")[1], 16) == port:
            print(name, address.split(":")[0])
dist.destroy_process_group()
"""


# The launcher of a warm start makes its store elsewhere, and chooses the port itself.
LAUNCHER = """
import sys
sys.path.insert(0, {root!r})
from torch.distributed.elastic.rendezvous import RendezvousParameters, c10d_rendezvous_backend as module
from medserl.loopback import keep_store_on_loopback
keep_store_on_loopback(module)
store = module._create_tcp_store(RendezvousParameters("c10d", "localhost:0", "id", 1, 1, is_host="1"))
store.set("a", "b")
assert store.get("a") == b"b" and store.port
for name in ("tcp", "tcp6"):
    for line in open(f"/proc/self/net/{{name}}").readlines()[1:]:
        address, state = line.split()[1], line.split()[3]
        if state == "0A" and int(address.split(":")[1], 16) == store.port:
            print(name, address.split(":")[0])
"""
# A worker of vLLM has no verl, which would bring the change: vLLM's plug-in does it, whatever the device.
WORKER = """
import sys
sys.path.insert(0, {root!r})
from medserl.cpu.vllm_plugin import register
register()
register()
import torch.distributed
print("tcp", getattr(sys.modules["torch.distributed.rendezvous"].TCPStore, "on_loopback", False))
assert "vllm" not in sys.modules
"""


def shown(code: str, wanted: str) -> list[str]:
    environment = {**os.environ, "MEDSERL_LOOPBACK_ONLY": wanted, "GLOO_SOCKET_IFNAME": "lo"}
    environment.pop("VERL_PLATFORM", None)
    done = subprocess.run([sys.executable, "-c", code.format(root=str(ROOT))], env=environment, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode().split()[1::2]


@pytest.mark.timeout(120)
@pytest.mark.parametrize(("wanted", "address"), [("1", "0100007F"), ("", "0" * 32)])
def test_the_launchers_store_listens_there_too(wanted: str, address: str) -> None:
    assert shown(LAUNCHER, wanted) == [address]


@pytest.mark.timeout(120)
@pytest.mark.parametrize(("wanted", "changed"), [("1", "True"), ("", "False")])
def test_vllm_brings_the_change_where_there_is_no_verl(wanted: str, changed: str) -> None:
    assert shown(WORKER, wanted) == [changed]


@pytest.mark.timeout(120)
@pytest.mark.parametrize(("wanted", "address"), [("1", "0100007F"), ("", "0" * 32)])
def test_the_store_listens_where_it_is_told(wanted: str, address: str) -> None:
    assert shown(CODE, wanted) == [address]
