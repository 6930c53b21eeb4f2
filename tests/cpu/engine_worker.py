"""The processes of the engine tests: verl's Megatron engine, one layout after the other.

Run by tests/cpu/test_engine_parity.py as ``python engine_worker.py DIRECTORY TPxPP ...``. It imports once and forks
TP × PP processes (gloo) for each layout: imports are most of what one of them would do.
Everything that they find out goes to files in DIRECTORY; the tests judge them.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from engine_reference import (
    BETAS,
    CLIP,
    DECAY_STEPS,
    LENGTHS,
    LR,
    MICRO_BATCH,
    MIN_LR,
    PRECISIONS,
    SAVE_AFTER,
    STEPS,
    WARMUP_FROM,
    WARMUP_STEPS,
    WEIGHT_DECAY,
    loss_masks,
    sequences,
)
from family_models import NAMES

ALL_CONTENTS = ("model", "optimizer", "extra")
ADAM_KEYS = ("master", "exp_avg", "exp_avg_sq")
CRITICS = ("llama_tied", "qwen2_untied")
"""Models that critics are made of: with no output layer in their files, of which there are several, and with one."""
DYNAMIC_TOKENS = 60  # two of the longest rows, five of the shorter ones
LAST_STAGE = {(2, 2): {"num_layers_in_last_pipeline_stage": 1}}
"""Layout -> a pipeline of unequal stages, 3 + 1 of the four layers: loaded, trained, saved and exported like others."""
RESHARDED_FROM = {(1, 2): (2, 1), (2, 2): (1, 2)}
"""Layout (TP, PP) -> another one whose checkpoint it goes on from; its processes have ended before."""


def make_engine(
    path: Path,
    precision: str,
    tp: int,
    pp: int,
    load_contents: tuple[str, ...] = ALL_CONTENTS,
    kind: str = "language_model",
) -> Any:
    """verl's engine, made as ``verl.workers.engine_workers.TrainingWorker`` makes it."""
    from verl.trainer.config import CheckpointConfig
    from verl.workers.config import HFModelConfig, McoreEngineConfig, McoreOptimizerConfig
    from verl.workers.engine import EngineRegistry

    from medserl.cpu.megatron import OVERRIDE_TRANSFORMER_CONFIG

    engine_config = McoreEngineConfig(
        tensor_model_parallel_size=tp,
        pipeline_model_parallel_size=pp,
        sequence_parallel=False,
        vanilla_mbridge=True,
        pad_bshd_to_minibatch_max=False,  # as configs/embedded.yaml says
        use_remove_padding=False,
        dtype="bfloat16",
        dist_ckpt_optim_fully_reshardable=True,  # as configs/base.yaml says
        distrib_optim_fully_reshardable_mem_efficient=True,
        override_transformer_config=OVERRIDE_TRANSFORMER_CONFIG | LAST_STAGE.get((tp, pp), {}),
    )
    # verl's configuration refuses float32, its engine does not; float32 is what lets the comparison be
    # strict, since bf16's rounding hides small errors.
    object.__setattr__(engine_config, "dtype", precision)
    optimizer_config = McoreOptimizerConfig(
        optimizer="adam",
        lr=LR,
        min_lr=MIN_LR,
        clip_grad=CLIP,
        weight_decay=WEIGHT_DECAY,
        betas=BETAS,
        lr_warmup_init=WARMUP_FROM,
        lr_warmup_steps=WARMUP_STEPS,
        lr_decay_style="cosine",
        lr_decay_steps=DECAY_STEPS,
        total_training_steps=DECAY_STEPS,
        use_checkpoint_opt_param_scheduler=True,  # otherwise the schedule starts anew after a load
    )
    model_config = HFModelConfig(path=str(path), use_remove_padding=False)
    object.__setattr__(model_config, "model_type", kind)
    engine = EngineRegistry.new(
        kind,
        "megatron",
        model_config,
        engine_config,
        optimizer_config,
        CheckpointConfig(load_contents=list(load_contents)),
    )
    engine.initialize()
    return engine


def batch(tokens: int | None = None) -> Any:
    """The case; ``tokens``: in dynamic micro-batches of so many."""
    import verl.utils.tensordict_utils as tu
    from tensordict import TensorDict
    from verl.utils.dataset.dataset_utils import DatasetPadMode

    def nest(parts: list[torch.Tensor]) -> torch.Tensor:
        return torch.nested.as_nested_tensor(parts, layout=torch.jagged)

    data = TensorDict(
        {
            "input_ids": nest(sequences()),
            "position_ids": nest([torch.arange(n) for n in LENGTHS]),
            "loss_mask": nest(loss_masks()),
            "temperature": torch.ones(len(LENGTHS)),
        },
        batch_size=len(LENGTHS),
    )
    tu.assign_non_tensor(
        data,
        use_dynamic_bsz=tokens is not None,
        micro_batch_size_per_gpu=MICRO_BATCH,
        **({} if tokens is None else {"max_token_len_per_gpu": tokens}),
        pad_mode=DatasetPadMode.NO_PADDING,
        calculate_entropy=False,
        use_fused_kernels=False,
    )
    return data


def loss_function(model_output: dict[str, Any], data: Any, dp_group: Any) -> tuple[torch.Tensor, dict]:
    """Minus the log-probability per counted token of the whole batch; micro-batches add up to it."""
    del dp_group
    log_probs = model_output["log_probs"]
    values = log_probs.values() if log_probs.is_nested else log_probs
    return -(values * data["loss_mask"].values()).sum() / data["batch_num_tokens"], {}


def in_like_lengths(engine: Any) -> dict[str, Any]:
    """The case in micro-batches of like length: what each was padded to, log-probabilities, loss and gradients."""
    from verl.models.mcore import model_forward

    padded, upstream = [], model_forward.preprocess_bshd_engine

    def seen(*args: Any, **kwargs: Any) -> Any:
        made = upstream(*args, **kwargs)
        padded.append(tuple(made[1].shape))
        return made

    model_forward.preprocess_bshd_engine = seen
    try:
        found: dict[str, Any] = {"log_probs": log_probs(engine, DYNAMIC_TOKENS), "padded": sorted(set(padded))}
        with engine.train_mode():
            engine.optimizer_zero_grad()
            out = engine.forward_backward_batch(batch(DYNAMIC_TOKENS), loss_function, forward_only=False)
            found["gradients"] = gathered(engine, lambda p: p.main_grad)
    finally:
        model_forward.preprocess_bshd_engine = upstream
    return {**found, "loss": out.get("loss")}


def optimizer_parts(engine: Any) -> list[Any]:
    return getattr(engine.optimizer, "chained_optimizers", [engine.optimizer])


def adam_state(engine: Any) -> dict[int, dict[str, torch.Tensor]]:
    """id(model parameter) -> master, exp_avg, exp_avg_sq in its shape (no data parallelism: whole)."""
    found = {}
    for part in optimizer_parts(engine):
        pairs = [
            *zip(part.model_float16_groups, part.shard_fp32_from_float16_groups, strict=True),
            *zip(part.model_fp32_groups, part.shard_fp32_groups, strict=True),
        ]
        for parameters, shards in pairs:
            for parameter, shard in zip(parameters, shards, strict=True):
                state = part.optimizer.state[shard]
                found[id(parameter)] = {
                    "master": shard.detach().view(parameter.shape),
                    **{k: state[k].view(parameter.shape) for k in ("exp_avg", "exp_avg_sq")},
                }
    return found


Value = Callable[[torch.Tensor], torch.Tensor]


@contextmanager
def instead_of_parameters(model: torch.nn.Module, value: Value) -> Iterator[None]:
    """Within it the model's parameters are ``value(parameter)``, with their tensor-parallel layout."""
    named = list(model.named_parameters())

    def stand_ins(*_: Any, **__: Any) -> Iterator[tuple[str, torch.Tensor]]:
        for name, parameter in named:
            tensor = value(parameter).detach().clone()
            for attribute in ("tensor_model_parallel", "partition_dim"):
                if hasattr(parameter, attribute):
                    setattr(tensor, attribute, getattr(parameter, attribute))
            yield name, tensor

    model.named_parameters = stand_ins  # type: ignore[method-assign]
    try:
        yield
    finally:
        del model.named_parameters


def gathered(engine: Any, value: Value = lambda p: p) -> dict[str, torch.Tensor]:
    """Hugging Face name -> whole tensor, gathered over all ranks by the engine's own export."""
    from megatron.core.utils import unwrap_model

    model = unwrap_model(engine.module[0])
    with instead_of_parameters(model, value):
        tensors: dict[str, torch.Tensor] = {}
        for name, tensor in engine.get_per_tensor_param()[0]:
            if name in tensors:  # tied embeddings: the first and the last pipeline stage hold them
                assert torch.equal(tensors[name], tensor), f"the copies of {name} differ"
            tensors[name] = tensor.clone()
        return tensors


def gathered_state(engine: Any) -> dict[str, dict[str, torch.Tensor]]:
    local = adam_state(engine)
    parts = {key: gathered(engine, lambda p, key=key: local[id(p)][key]) for key in ADAM_KEYS}  # type: ignore[misc]
    return {name: {key: parts[key][name] for key in ADAM_KEYS} for name in parts["master"]}


def rates(engine: Any) -> list[float]:
    return [group["lr"] for group in engine.optimizer.param_groups]


def train(engine: Any, steps: range) -> list[dict[str, Any]]:
    curve = []
    for _ in steps:
        with engine.train_mode():
            used = rates(engine)
            out = engine.train_batch(batch(), loss_function)
            engine.lr_scheduler_step()
        metrics = out.get("metrics", {})
        curve.append({"loss": out.get("loss"), "norm": metrics.get("grad_norm"), "rates": used})
    return curve


def random_numbers() -> torch.Tensor:
    """What torch's generator and megatron's tensor-parallel one would draw next; draws them."""
    from megatron.core.tensor_parallel.random import get_cuda_rng_tracker

    with get_cuda_rng_tracker().fork():
        inside = torch.rand(4)
    return torch.cat([torch.rand(4), inside])


def local_state(engine: Any) -> list[dict[str, torch.Tensor]]:
    """This rank's own parameters, masters and Adam state, as they are."""
    state = adam_state(engine)
    parameters = [p for module in engine.module for p in module.parameters()]
    return [{"parameter": p.detach().clone()} | {k: state[id(p)][k].clone() for k in ADAM_KEYS} for p in parameters]


def adam_steps(engine: Any) -> list[float]:
    return [float(s["step"]) for part in optimizer_parts(engine) for s in part.optimizer.state.values()]


def resume(checkpoint: Path, model: Path, precision: str, tp: int, pp: int) -> dict[str, Any]:
    """What a fresh engine does that loads the checkpoint and trains to the end."""
    torch.manual_seed(99)  # the checkpoint must bring its own random state
    engine = make_engine(model, precision, tp, pp)
    engine.load_checkpoint(str(checkpoint), del_local_after_load=False)
    found: dict[str, Any] = {"numbers": random_numbers(), "steps_at_load": adam_steps(engine)}
    curve = train(engine, range(SAVE_AFTER, STEPS))
    return {**found, "curve": curve, "rates": rates(engine), "state": local_state(engine)}


def go_on_resharded(checkpoint: Path, model: Path, precision: str, tp: int, pp: int) -> dict[str, Any]:
    """What a fresh engine does that loads another layout's checkpoint and trains to the end.

    Random states belong to a rank of a layout and are left out; nothing in these models draws from them.
    """
    engine = make_engine(model, precision, tp, pp, ("model", "optimizer"))
    engine.load_checkpoint(str(checkpoint), del_local_after_load=False)
    found: dict[str, Any] = {"steps_at_load": adam_steps(engine), **whole(engine)}
    return {**found, "curve": train(engine, range(SAVE_AFTER, STEPS)), "rates": rates(engine)}


def whole(engine: Any) -> dict[str, Any]:
    """Masters and Adam state by Hugging Face name, and log-probs (those on ranks of the last stage only)."""
    return {"state": gathered_state(engine), "log_probs": log_probs(engine)}


def log_probs(engine: Any, tokens: int | None = None) -> list[torch.Tensor]:
    with engine.eval_mode():
        inferred = engine.infer_batch(batch(tokens))
    return list(inferred["model_output"]["log_probs"].unbind()) if engine.is_mp_src_rank_with_outputs() else []


def export(checkpoint: Path, out: Path) -> None:
    """What ``medserl export`` makes of the checkpoint, and plain Hugging Face's log-probs with it."""
    from engine_reference import Plain

    from medserl.training.export import export_checkpoint

    export_checkpoint(checkpoint, out)
    found = {name: Plain(out, dtype).log_probs() for name, dtype in PRECISIONS.items()}
    torch.save(found, out.with_suffix(".pt"))


def run_layout(directory: Path, precision: str, tp: int, pp: int) -> None:
    import torch.distributed as dist

    mine, name = dist.get_rank(), f"{precision}_{tp}x{pp}"
    engine = make_engine(directory / "model", precision, tp, pp)
    found: dict[str, Any] = {"start": gathered(engine)}

    found["log_probs"] = log_probs(engine)
    with engine.train_mode():
        engine.optimizer_zero_grad()
        out = engine.forward_backward_batch(batch(), loss_function, forward_only=False)
        found["gradients"] = gathered(engine, lambda p: p.main_grad)
    found["dynamic"] = in_like_lengths(engine)

    curve = train(engine, range(SAVE_AFTER))
    if save := precision == "bfloat16":  # megatron cannot load float32 parameters' optimizer state
        checkpoint = directory / f"checkpoint_{name}"
        engine.save_checkpoint(str(checkpoint), global_step=SAVE_AFTER)
        next_numbers = random_numbers()
        found["saved"] = whole(engine)
        dist.barrier()
        if mine == 0:
            export(checkpoint, directory / f"exported_{tp}x{pp}")
    curve += train(engine, range(SAVE_AFTER, STEPS))
    found["state"] = gathered_state(engine)
    found["adam_steps"] = adam_steps(engine)
    if save:
        uninterrupted = {"curve": curve[SAVE_AFTER:], "rates": rates(engine), "state": local_state(engine)}
        resumed = resume(checkpoint, directory / "model", precision, tp, pp)
        resumed["same_numbers"] = torch.equal(next_numbers, resumed.pop("numbers"))
        torch.save((uninterrupted, resumed), directory / f"resume_{name}_{mine}.pt")
        if (other := RESHARDED_FROM.get((tp, pp))) is not None:
            theirs = directory / f"checkpoint_{precision}_{other[0]}x{other[1]}"
            found["resharded"] = go_on_resharded(theirs, directory / "model", precision, tp, pp)
    if engine.is_mp_src_rank_with_outputs():
        torch.save({**found, "loss": out["loss"], "curve": curve}, directory / f"engine_{name}.pt")


def run_family(directory: Path, name: str, tp: int, pp: int) -> None:
    """Weights, log-probs and gradients of another family's model in float32; an export of it where all is split."""
    import torch.distributed as dist

    engine = make_engine(directory / name, "float32", tp, pp)
    found: dict[str, Any] = {"start": gathered(engine), "log_probs": log_probs(engine)}
    with engine.train_mode():
        engine.optimizer_zero_grad()
        out = engine.forward_backward_batch(batch(), loss_function, forward_only=False)
        found["gradients"] = gathered(engine, lambda p: p.main_grad)
    if engine.is_mp_src_rank_with_outputs():
        torch.save({**found, "loss": out["loss"]}, directory / f"family_{name}_{tp}x{pp}.pt")
    if (tp, pp) == (2, 2):
        checkpoint = directory / f"checkpoint_{name}"
        make_engine(directory / name, "bfloat16", tp, pp).save_checkpoint(str(checkpoint), global_step=0)
        dist.barrier()
        if dist.get_rank() == 0:
            export(checkpoint, directory / f"exported_{name}")


def value_loss(model_output: dict[str, Any], data: Any, dp_group: Any) -> tuple[torch.Tensor, dict]:
    """Half the squared distance to a return of 1 for every counted token of the whole batch."""
    del dp_group
    values = model_output["values"]
    distances = ((values.values() if values.is_nested else values) - 1.0).square()
    return 0.5 * (distances * data["loss_mask"].values()).sum() / data["batch_num_tokens"], {}


def values(engine: Any) -> list[torch.Tensor]:
    with engine.eval_mode():
        inferred = engine.infer_batch(batch())
    return list(inferred["model_output"]["values"].unbind()) if engine.is_mp_src_rank_with_outputs() else []


def plain_values(folder: Path) -> list[torch.Tensor]:
    """Transformers' hidden states times the row that has the output layer's name."""
    from safetensors.torch import load_file
    from transformers import AutoModel

    weights = {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}
    head = weights["lm_head.weight"]
    assert head.shape[0] == 1 and head.any()
    model = AutoModel.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        return [model(ids[None]).last_hidden_state[0] @ head[0].float() for ids in sequences()]


def run_critic(directory: Path, name: str, tp: int, pp: int) -> None:
    """A critic of a model: its first values, what training makes of them, and what comes back from its checkpoint, in
    the layout that wrote it and, where there is one, from another layout's."""
    import torch.distributed as dist

    model = directory / name
    checkpoint = directory / f"checkpoint_critic_{name}_{tp}x{pp}"

    def fresh(contents: tuple[str, ...] = ALL_CONTENTS) -> Any:
        return make_engine(model, "bfloat16", tp, pp, contents, "value_model")

    def fitted(engine: Any, steps: range) -> list[Any]:
        losses = []
        for _ in steps:
            with engine.train_mode():
                losses.append(engine.train_batch(batch(), value_loss).get("loss"))
                engine.lr_scheduler_step()
        return losses

    engine = fresh()
    found: dict[str, Any] = {"start": values(engine), "losses": fitted(engine, range(SAVE_AFTER))}
    engine.save_checkpoint(str(checkpoint), global_step=SAVE_AFTER)
    dist.barrier()
    if dist.get_rank() == 0:
        torch.save(plain_values(checkpoint / "model" / "huggingface"), checkpoint.with_suffix(".pt"))
    found |= {"saved": values(engine), "more": fitted(engine, range(SAVE_AFTER, STEPS)), "end": values(engine)}
    resumed = fresh()
    resumed.load_checkpoint(str(checkpoint), del_local_after_load=False)
    found |= {"loaded": values(resumed), "again": fitted(resumed, range(SAVE_AFTER, STEPS)), "last": values(resumed)}
    if (other := RESHARDED_FROM.get((tp, pp))) is not None:
        theirs = directory / f"checkpoint_critic_{name}_{other[0]}x{other[1]}"
        moved = fresh(("model", "optimizer"))
        moved.load_checkpoint(str(theirs), del_local_after_load=False)
        found["moved"] = values(moved)
    if engine.is_mp_src_rank_with_outputs():
        torch.save(found, directory / f"critic_{name}_{tp}x{pp}.pt")


def rank(directory: Path, tp: int, pp: int) -> None:
    """The work of one process of a layout."""
    import torch.distributed as dist

    dist.init_process_group(
        "gloo",
        init_method=f"file://{directory}/rendezvous_{tp}x{pp}",  # no port that someone else could take
        rank=int(os.environ["RANK"]),
        world_size=int(os.environ["WORLD_SIZE"]),
        timeout=timedelta(seconds=120),
    )
    for precision in PRECISIONS:
        run_layout(directory, precision, tp, pp)
    for name in NAMES:
        run_family(directory, name, tp, pp)
    for name in CRITICS:
        run_critic(directory, name, tp, pp)
    dist.barrier()
    dist.destroy_process_group()


def forked(directory: Path, tp: int, pp: int, number: int) -> int:
    """Process id of a new process that does one rank's work and writes to a log of its own."""
    if pid := os.fork():
        return pid
    code = 1
    try:
        log = os.open(directory / f"worker_{tp}x{pp}_{number}.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.environ.update(RANK=str(number), WORLD_SIZE=str(tp * pp), LOCAL_RANK=str(number))
        rank(directory, tp, pp)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def import_all() -> None:
    """What `run_layout` needs; nothing that starts a thread, which would not survive a fork."""
    import verl.workers.engine  # noqa: F401
    from transformers import LlamaForCausalLM, MistralForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM  # noqa: F401

    import medserl.training.export  # noqa: F401

    gc.freeze()


def main(directory: Path, layouts: list[tuple[int, int]]) -> int:
    """0, or 1 where a process of a layout failed: the layouts after it are not run."""
    import_all()
    for tp, pp in layouts:
        children = {forked(directory, tp, pp, number) for number in range(tp * pp)}
        while children:
            pid, status = os.wait()
            children.discard(pid)
            if status:
                for other in children:
                    os.kill(other, signal.SIGKILL)
                print(f"a process of TP {tp} x PP {pp} ended with {os.waitstatus_to_exitcode(status)}")
                return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), [tuple(map(int, text.split("x"))) for text in sys.argv[2:]]))  # type: ignore[misc]
