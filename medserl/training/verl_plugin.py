"""Four changes to verl for every run, on GPUs as on CPUs. ``import verl`` loads the first three in every process
(``VERL_USE_EXTERNAL_MODULES``).

New weights go from Megatron's workers to vLLM's through a socket in /tmp that both sides name after Ray's job id, the
replica and the rank (verl 0.9.1, verl/workers/rollout/vllm_rollout/vllm_rollout.py:141, ServerAdapter.__init__, and
utils.py:431, vLLMColocateWorkerExtension._get_zmq_handle). The first job of every Ray cluster has the id 01000000, so
two runs on one machine, each with a cluster of its own, use the same socket: one of them waits for ever for its
receiver, or takes the other's weights. Both names get a token of the run.

The actor that counts vLLM's requests (verl/workers/rollout/router.py, GlobalRequestLoadBalancer) needs a dictionary
and a cache, but its process imports all of verl to find its class, and then vLLM with it: Ray loads an actor's class
where a handle of the actor arrives. That is 10 to 15 s of processor time and 1 GB, and the first requests wait for it.
So its class goes there by value, and the handles as bytes, which the clients open.

mbridge, which verl takes models to Megatron with (verl/models/mcore/mbridge.py), gets its bridges mended
(medserl/bridges.py says what); without a GPU medserl/cpu/bridge.py does it.

Advantages are computed between one read of a batch from the TransferQueue and one write to it, by a function that
verl's trainer calls by its name (verl/trainer/ppo/v1/trainer_base.py, compute_advantage_for_multi_trajectories). The
trainer puts its own, by role, in that place for as long as the call takes, so that no row travels twice.

tests/training/test_verl_plugin.py, and test_trainer.py for the last, fail when verl changes one of these places.
"""

from __future__ import annotations

import functools
import os
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from medserl.files import PRIVATE_UMASK
from medserl.imports import after_import, spare_scipy
from medserl.loopback import RENDEZVOUS, keep_store_on_loopback
from medserl.run.leftovers import RUN_TOKEN, SOCKETS
from medserl.training.rendezvous import meet_outside_of_outgoing_ports

PREFIX = f"ipc:///tmp/{SOCKETS}"


def own_socket(handle: str) -> str:
    """The socket's name with the run's token in it; unchanged where the run has none, or the name another form."""
    token = os.environ.get(RUN_TOKEN)
    if not token or not handle.startswith(PREFIX) or handle.startswith(f"{PREFIX}{token}-"):
        return handle
    return f"{PREFIX}{token}-{handle.removeprefix(PREFIX)}"


def name_sender(module: ModuleType) -> None:
    """verl.workers.rollout.vllm_rollout.vllm_rollout: the trainer's side."""
    upstream = module.ServerAdapter.__init__

    @functools.wraps(upstream)
    def initialise(self: Any, *args: Any, **kwargs: Any) -> None:
        upstream(self, *args, **kwargs)
        self.zmq_handle = own_socket(self.zmq_handle)

    module.ServerAdapter.__init__ = initialise


def name_receiver(module: ModuleType) -> None:
    """verl.workers.rollout.vllm_rollout.utils: vLLM's side."""
    upstream = module.vLLMColocateWorkerExtension._get_zmq_handle

    @functools.wraps(upstream)
    def handle(self: Any) -> str:
        return own_socket(upstream(self))

    module.vLLMColocateWorkerExtension._get_zmq_handle = handle


def lighten_balancer(module: Any) -> None:
    """verl.workers.rollout.router: the balancer's side."""
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(module)
    upstream = module._create_global_sticky_inflight

    @functools.wraps(upstream)
    def create(servers: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        return upstream({name: cloudpickle.dumps(handle) for name, handle in servers.items()}, *args, **kwargs)

    module._create_global_sticky_inflight = create


def open_handles(module: ModuleType) -> None:
    """verl.workers.rollout.llm_server: the clients' side."""
    upstream = module.LLMServerClient._acquire_server
    opened: dict[bytes, Any] = {}

    @functools.wraps(upstream)
    async def acquire(self: Any, *args: Any, **kwargs: Any) -> tuple[str, Any]:
        name, server = await upstream(self, *args, **kwargs)
        if isinstance(server, bytes):
            if server not in opened:
                opened[server] = pickle.loads(server)
            server = opened[server]
        return name, server

    module.LLMServerClient._acquire_server = acquire


def mend_bridges(module: ModuleType) -> None:
    """verl.models.mcore.mbridge: Megatron's workers import it before they make a model."""
    del module
    from medserl.bridges import register

    register()


@contextmanager
def advantages_by(compute: Callable[..., Any]) -> Iterator[None]:
    """Within this verl's trainer calls ``compute(upstream, data, batch_keys=…, …)`` for the advantages of a batch;
    ``upstream`` is verl's own function."""
    from verl.trainer.ppo.v1 import trainer_base

    upstream = trainer_base.compute_advantage_for_multi_trajectories
    trainer_base.compute_advantage_for_multi_trajectories = functools.partial(compute, upstream)
    try:
        yield
    finally:
        trainer_base.compute_advantage_for_multi_trajectories = upstream


HOOKS = {
    "verl.models.mcore.mbridge": mend_bridges,
    RENDEZVOUS: keep_store_on_loopback,
    "verl.trainer.ppo.v1.trainer_base": meet_outside_of_outgoing_ports,
    "verl.workers.rollout.router": lighten_balancer,
    "verl.workers.rollout.llm_server": open_handles,
    "verl.workers.rollout.vllm_rollout.vllm_rollout": name_sender,
    "verl.workers.rollout.vllm_rollout.utils": name_receiver,
}

if os.environ.get(RUN_TOKEN):
    # Also where Ray was started by somebody else, whose umask its workers would have.
    os.umask(PRIVATE_UMASK)
    after_import(HOOKS)
    spare_scipy()
