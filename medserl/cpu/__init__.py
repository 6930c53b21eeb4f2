"""What verl, Megatron and vLLM need on a machine without an accelerator.

Everything in this package acts only in processes whose environment says ``VERL_PLATFORM=cpu``
(`medserl.cpu.environment.cpu_environment` says so; nothing else does). On GPUs nothing of it runs but
`environment.choose_device` and the vLLM plug-in, which returns at once.

==================  ============================================================================
`probe`             finds instructions that the processor advertises and cannot run (child process)
`environment`       chooses the device; the environment that every process gets before torch
`plugin`            verl platform "cpu"; loaded in every process by ``import verl``
`megatron`          verl's Megatron engine on CPUs (imported in Megatron workers only)
`fsdp`              verl's FSDP engines on CPUs (``model_engine=dp``)
`cuda_names`        answers the CUDA names that megatron-core spells out
`bridge`            Megatron's layers without Transformer Engine
`vllm_plugin`       vLLM's CPU layers keep their weights for new ones; its processes are forked
`patches`           the table of every upstream symbol that is replaced: where, why, which version
==================  ============================================================================

How a process becomes a CPU process: the command line calls `choose_device` and, for "cpu", puts
`cpu_environment` into its own environment before it imports torch, and into Ray's
``runtime_env``. In each process ``import verl`` then loads `plugin` (``VERL_USE_EXTERNAL_MODULES``),
and vLLM loads `vllm_plugin` (an entry point of this distribution). `plugin.assert_active` fails
loudly where that did not happen.

How to remove it: delete this directory, the entry point ``medserl_cpu`` in ``pyproject.toml``, and
the branch for "cpu" in the command line. No other module imports it.

This package imports nothing heavy by itself: `probe`, `environment` and `patches` need the standard
library only, and torch, megatron-core and vLLM are imported where they are used.
"""
