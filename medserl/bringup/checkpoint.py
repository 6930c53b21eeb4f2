"""(d) verl's engine with its optimizer: a step, a save, a load."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from medserl.bringup.checks import Unexpected
from medserl.bringup.child import Place
from medserl.bringup.engine import LONGEST, TOKENS, batch, lengths, loss, make_engine, model_with_weights, shape_of

LAYERS = 4
"""36 layers need 72 GB for weights, gradients and Adam, and twice as much of the host for a checkpoint."""


def step_save_load(place: Place) -> dict[str, Any]:
    """Two steps, a checkpoint, one more step, and the checkpoint again: weights must be those that were saved."""
    folder = model_with_weights(place, LAYERS)
    engine = make_engine(place, folder, optimizer=True)
    shape = shape_of(folder)
    sizes = lengths(TOKENS[place.device], LONGEST[place.device])
    checkpoint = str(place.folder / "checkpoint")
    losses: list[float] = []

    def step() -> None:
        with engine.train_mode():
            out = engine.train_batch(batch(sizes, shape["vocab_size"]), loss)
            engine.lr_scheduler_step()
        losses.append(float(torch.tensor(out["loss"]).mean()))

    step()
    step_seconds = _timed(step)
    saved = _weights(engine)
    save_seconds = _timed(lambda: engine.save_checkpoint(checkpoint, global_step=len(losses)))
    step()
    moved = _weights(engine)
    load_seconds = _timed(lambda: engine.load_checkpoint(checkpoint, del_local_after_load=False))
    loaded = _weights(engine)
    size = sum(path.stat().st_size for path in Path(checkpoint).rglob("*") if path.is_file())
    found = {
        "losses": [round(value, 5) for value in losses],
        "step_seconds": round(step_seconds, 3),
        "save_seconds": round(save_seconds, 2),
        "load_seconds": round(load_seconds, 2),
        "checkpoint_mib": round(size / 2**20, 1),
        "peak_gib": round(torch.cuda.max_memory_allocated() / 2**30, 2) if place.device == "cuda" else None,
    }
    if not losses[-1] < losses[0]:
        raise Unexpected("the loss does not fall", found)
    if all(torch.equal(a, b) for a, b in zip(saved, moved, strict=True)):
        raise Unexpected("a step changes no weight", found)
    if not all(torch.equal(a, b) for a, b in zip(saved, loaded, strict=True)):
        raise Unexpected("weights after the load are not those that were saved", found)
    return found


def _weights(engine: Any) -> list[torch.Tensor]:
    return [p.detach().cpu().clone() for module in engine.module for p in module.parameters()]


def _timed(work: Callable[[], None]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
