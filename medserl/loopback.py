"""Torch's stores of addresses listen on loopback where nothing outside this machine has to reach them.

torch 2.11.0 starts a ``TCPStore``, which listens on every interface of the machine and lets anyone read and change its
keys, in rank 0 of a process group (torch/distributed/rendezvous.py, _create_c10d_store) and twice in the launcher of a
warm start (torch/distributed/elastic/rendezvous: c10d_rendezvous_backend.py, _create_tcp_store, and
dynamic_rendezvous.py, _create_tcp_store_server). It takes a socket that already listens, so here it is given one that
is bound to 127.0.0.1. Loaded by medserl/training/verl_plugin.py in every process of a training, by
medserl/cpu/vllm_plugin.py in those of vLLM alone, by medserl/sft/torch_run.py and medserl/preflight/all_reduce.py;
tests/training/test_loopback.py and tests/e2e/test_sockets.py fail when torch changes one of these places.
"""

from __future__ import annotations

import functools
import os
import socket
from types import ModuleType
from typing import Any

VARIABLE = "MEDSERL_LOOPBACK_ONLY"
RENDEZVOUS = "torch.distributed.rendezvous"
ON_LOOPBACK = {VARIABLE: "1", "VLLM_HOST_IP": "127.0.0.1", "GLOO_SOCKET_IFNAME": "lo"}
"""The environment of processes that only each other have to reach, on CPUs and GPUs."""
LOOPBACK = ("127.0.0.1", "localhost")


def keep_store_on_loopback(module: ModuleType) -> None:
    """``TCPStore`` as a module of torch's knows it."""
    upstream = module.TCPStore
    if os.environ.get(VARIABLE) != "1" or getattr(upstream, "on_loopback", False):
        return

    @functools.wraps(upstream, updated=())
    def store(host_name: str, port: int, *args: Any, **kwargs: Any) -> Any:
        if kwargs.get("is_master") and host_name in LOOPBACK and "master_listen_fd" not in kwargs:
            kwargs["master_listen_fd"], port = _listening(port)
        return upstream(host_name, port, *args, **kwargs)

    store.on_loopback = True  # type: ignore[attr-defined]
    module.TCPStore = store  # type: ignore[attr-defined]


def _listening(port: int) -> tuple[int, int]:
    """The file descriptor of a socket that listens on loopback, which whoever is given it closes, and its port."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((LOOPBACK[0], port))
    listener.listen()
    chosen: int = listener.getsockname()[1]
    return listener.detach(), chosen
