"""A supervised run that goes on has the batches that the uninterrupted one has."""

from types import SimpleNamespace
from typing import Any

import pytest
from torchdata.stateful_dataloader import StatefulDataLoader

from medserl.config.load import verl_config_dir
from medserl.sft.worker import begin_epoch

ROWS, BATCH = 20, 2
EPOCH = ROWS // BATCH


def trainer_at(step: int) -> Any:
    """What verl's trainer is after it loaded the checkpoint of a step, saved inside its loop."""
    made = SimpleNamespace(resume_global_step=step, steps_per_epoch=EPOCH, ckpt_handler=SimpleNamespace())

    def build() -> None:
        made.train_dataloader = StatefulDataLoader(list(range(ROWS)), batch_size=BATCH, drop_last=True, num_workers=0)

    made._build_dataloader = build
    build()
    if step:
        loader = StatefulDataLoader(list(range(ROWS)), batch_size=BATCH, drop_last=True, num_workers=0)
        for number, _ in enumerate(loader, 1):
            if number == (step - 1) % EPOCH + 1:
                made.train_dataloader.load_state_dict(loader.state_dict())
                break
    made.ckpt_handler.train_dataloader = made.train_dataloader
    return made


@pytest.mark.parametrize("step", [0, 1, 9, 10, 11, 19, 20, 25, 30])
def test_no_batch_is_left_out_wherever_the_run_was_interrupted(step: int) -> None:
    trainer = trainer_at(step)
    begin_epoch(trainer)
    batches = [batch.tolist() for batch in trainer.train_dataloader]
    assert batches == [[2 * i, 2 * i + 1] for i in range(step % EPOCH, EPOCH)]
    assert trainer.ckpt_handler.train_dataloader is trainer.train_dataloader, "its state is what is saved next"


def test_verl_still_saves_inside_its_loop_and_counts_epochs_by_steps() -> None:
    trainer, handler = (
        (verl_config_dir().parents[1] / name).read_text()
        for name in ("trainer/sft_trainer.py", "utils/checkpoint/checkpoint_handler.py")
    )
    fit = trainer[trainer.index("def fit(self):") :]
    assert "start_epoch = global_step // self.steps_per_epoch" in fit
    assert fit.index("self.train_dataloader,") < fit.index("self.ckpt_handler.save_checkpoint(step=global_step)")
    build = trainer[trainer.index("def _build_dataloader(self):") : trainer.index("def _get_batch_seqlens(")]
    assert "self.train_sampler =" in build and "self.train_dataloader = StatefulDataLoader(" in build
    assert "self.steps_per_epoch = len(self.train_dataloader)" in trainer
    assert "self.train_dataloader.state_dict()" in handler
