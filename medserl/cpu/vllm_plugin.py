"""vLLM's general plug-in of this distribution (entry point group ``vllm.general_plugins``).

vLLM calls `register` in its front end, engine core and workers. It returns at once unless
``VERL_PLATFORM=cpu``. It imports vLLM only in a process that vLLM has started.
"""

from __future__ import annotations

import os


def register() -> None:
    """Two corrections to vLLM's CPU layers; both can be called any number of times."""
    if os.environ.get("VERL_PLATFORM", "").strip().lower() != "cpu":
        return
    keep_linear_weights()
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

    def dispatch_and_keep(layer, remove_weight):  # type: ignore[no-untyped-def]
        del remove_weight
        dispatch(layer, remove_weight=False)

    dispatch_and_keep.keeps_weight = True  # type: ignore[attr-defined]
    utils.dispatch_cpu_unquantized_gemm = dispatch_and_keep


def avoid_amx() -> None:
    """vLLM takes AMX for bf16 attention by itself, past oneDNN's cap (patches.VLLM_AMX)."""
    import torch

    torch.cpu._is_amx_tile_supported = lambda: False
