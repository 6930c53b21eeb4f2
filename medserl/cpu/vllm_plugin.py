"""vLLM's general plug-in of this distribution (entry point group ``vllm.general_plugins``).

vLLM calls `register` in its front end, engine core and workers. Torch's store is kept on loopback where the environment
says so, on GPUs too; all else is for ``VERL_PLATFORM=cpu``. It imports vLLM only in a process that vLLM has started.
"""

from __future__ import annotations

import os

from medserl.imports import after_import
from medserl.loopback import RENDEZVOUS, keep_store_on_loopback


def register() -> None:
    """Adapts vLLM in this process; can be called any number of times."""
    after_import({RENDEZVOUS: keep_store_on_loopback})
    if os.environ.get("VERL_PLATFORM", "").strip().lower() != "cpu":
        return
    keep_linear_weights()
    fork_processes()
    if below_amx(os.environ.get("ONEDNN_MAX_CPU_ISA", "")):
        avoid_amx()


def below_amx(isa: str) -> bool:
    """Whether this value of ONEDNN_MAX_CPU_ISA keeps oneDNN from AMX; the probe sets it where AMX faults."""
    isa = isa.strip().upper()
    return isa not in ("", "ALL", "DEFAULT") and "AMX" not in isa


def keep_linear_weights() -> None:
    """Linear layers keep their ``weight`` beside the packed copy (patches.LINEAR_WEIGHT).

    vLLM's CPU layers pack their weight for oneDNN and drop the original, so that new weights from the
    trainer would have nowhere to go. verl loads into ``weight`` and then packs anew.
    """
    from vllm.model_executor.layers import utils

    dispatch = utils.dispatch_cpu_unquantized_gemm
    if getattr(dispatch, "keeps_weight", False):
        return

    def dispatch_and_keep(layer, remove_weight):
        del remove_weight
        dispatch(layer, remove_weight=False)

    dispatch_and_keep.keeps_weight = True  # type: ignore[attr-defined]
    utils.dispatch_cpu_unquantized_gemm = dispatch_and_keep


def fork_processes() -> None:
    """vLLM's engine core and workers are forked (patches.VLLM_SPAWN, VLLM_SPAWN_IN_RAY).

    vLLM would start each as a new interpreter that imports everything anew: 10 to 15 seconds of processor
    time each, one after the other. On CPUs it does so to preload libraries for threads bound to cores, and
    in Ray actors because CUDA does not survive a fork and engines on Ray must connect to it. Here threads
    are not bound (VLLM_CPU_OMP_THREADS_BIND=nobind) and there is neither CUDA nor an engine on Ray. What
    does not survive a fork is OpenMP's pool of threads: so this is done only where there is none.
    """
    from vllm.platforms.cpu import CpuPlatform
    from vllm.utils import system_utils

    check = CpuPlatform.check_and_update_config
    if os.environ.get("OMP_NUM_THREADS") != "1" or getattr(check, "forks", False):
        return

    def check_and_fork(cls, vllm_config):
        check.__func__(cls, vllm_config)
        os.environ["VLLM_WORKER_MULTIPROC_METHOD"] = "fork"

    check_and_fork.forks = True  # type: ignore[attr-defined]
    CpuPlatform.check_and_update_config = classmethod(check_and_fork)
    system_utils.is_in_ray_actor = lambda: False


def avoid_amx() -> None:
    """vLLM takes AMX for bf16 attention by itself, past oneDNN's cap (patches.VLLM_AMX)."""
    import torch

    torch.cpu._is_amx_tile_supported = lambda: False
