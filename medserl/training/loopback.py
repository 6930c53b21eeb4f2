"""Torch's rendezvous store listens on loopback where the run has one node.

torch 2.11.0 (torch/distributed/rendezvous.py, _create_c10d_store): rank 0 of a process group starts a ``TCPStore``,
which listens on every interface of the machine and lets anyone read and change its keys. It takes a socket that already
listens, so here it is given one that is bound to 127.0.0.1. Loaded with the other changes by
medserl/training/verl_plugin.py; tests/training/test_loopback.py fails when torch changes that place.
"""

from __future__ import annotations

import functools
import os
import socket
from types import ModuleType
from typing import Any

VARIABLE = "MEDSERL_LOOPBACK_ONLY"
LOOPBACK = ("127.0.0.1", "localhost")


def keep_store_on_loopback(module: ModuleType) -> None:
    """torch.distributed.rendezvous: ``TCPStore`` as that module knows it."""
    upstream = module.TCPStore
    if os.environ.get(VARIABLE) != "1" or getattr(upstream, "on_loopback", False):
        return

    @functools.wraps(upstream, updated=())
    def store(*args: Any, **kwargs: Any) -> Any:
        if kwargs.get("is_master") and kwargs.get("host_name") in LOOPBACK and "master_listen_fd" not in kwargs:
            kwargs["master_listen_fd"] = _listening(kwargs["port"])
        return upstream(*args, **kwargs)

    store.on_loopback = True  # type: ignore[attr-defined]
    module.TCPStore = store  # type: ignore[attr-defined]


def _listening(port: int) -> int:
    """The file descriptor of a socket that listens on loopback; whoever is given it closes it."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((LOOPBACK[0], port))
    listener.listen()
    return listener.detach()
