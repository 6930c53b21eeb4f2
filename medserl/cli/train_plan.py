"""What `medserl train` says before it starts: in numbers, what is about to run."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

from medserl.words import counted

if TYPE_CHECKING:
    from medserl.training.api import MedSeRLTrainer

WARD_SECONDS = 0.15
"""Of a note of a round and, WARD_START, of a start, with the ward's tiny model on two idle cores (README.md)."""
WARD_START = 75.0
WARD_AGAIN = 0.01
"""Seconds of a question that is asked again: a few tokens, and no injector."""


def plan(trainer: MedSeRLTrainer) -> str:
    """What is about to run, in a few lines."""
    from medserl.game.referee.instruction import unchecked_labels
    from medserl.run.layout import parallel_of
    from medserl.run.trackers import where_numbers_go
    from medserl.serving.servers import where_notes_go

    config, settings = trainer.config, trainer.settings
    parallel = parallel_of(config)
    world = config.trainer.nnodes * config.trainer.n_gpus_per_node
    rollout_tp = config.actor_rollout_ref.rollout.tensor_model_parallel_size
    split = f"TP {parallel.tp} x PP {parallel.pp} x " if parallel.workers > 1 or parallel.engine == "Megatron" else ""
    hosts, numbers = where_notes_go(settings), where_numbers_go(settings.trackers)
    unchecked = unchecked_labels(settings.referee.name, settings.second_referee.name)
    return "\n".join(
        (
            *((f"notes to   {hosts}: notes, and what is made of them, are sent there",) if hosts else ()),
            *((f"numbers to {numbers}: metrics and settings that are numbers, no text",) if numbers else ()),
            f"model      {config.actor_rollout_ref.model.path}",
            f"notes      {notes_line(trainer)}",
            f"prompts    {prompts_line(trainer)}",
            f"rounds     {rounds_line(trainer)}",
            f"game       referee {settings.referee.name}, reward {settings.rewards.name}",
            *((f"labels     {unchecked}",) if unchecked else ()),
            f"held out   {held_out(trainer)}",
            f"layout     {counted(world, 'worker')} on {counted(config.trainer.nnodes, 'node')}, "
            f"{config.trainer.device}: "
            f"{parallel.engine} {split}DP {world // parallel.workers}, vLLM TP {rollout_tp}",
            f"time       {time_line(trainer)}",
            f"run        {trainer.run_dir.path}",
        )
    )


def notes_line(trainer: MedSeRLTrainer) -> str:
    """Where the notes of a run come from, how many there are, how often each is played on, and the gold ones."""
    from medserl.config.plugins import described
    from medserl.config.settings import WARD, labelled_per_round

    settings, seen = trainer.settings, trainer.seen
    if settings.notes.source == WARD:
        where = counted(seen.notes, "synthetic note")
    else:
        where = f"{counted(seen.notes, 'note')} of {described(settings.notes)}"
    gold = f"gold labels of {counted(seen.gold, 'note')}" if labelled_per_round(settings) else "no gold labels"
    if not settings.rollout_batch_size:
        return f"{where}, none played on; {gold}"
    times = trainer.planned_rounds * settings.rollout_batch_size / max(seen.notes, 1)
    each = "once" if times == 1 else f"{times:.2g} times"
    return f"{where}, each played on {each}{' on average' if times % 1 else ''}; {gold}"


def prompts_line(trainer: MedSeRLTrainer) -> str:
    """The longest prompt against the limit."""
    data, longest = trainer.config.data, trainer.seen.longest
    measured = f"the longest needs {counted(longest, 'token')} of" if longest else "of at most"
    return f"{measured} {data.max_prompt_length}; a reply has up to {data.max_response_length}"


def rounds_line(trainer: MedSeRLTrainer) -> str:
    """How many rounds, and what one consists of."""
    from medserl.config.settings import labelled_per_round

    config, settings = trainer.config, trainer.settings
    parts = [counted(settings.rollout_batch_size, "note"), counted(labelled_per_round(settings), "gold-labelled note")]
    if settings.replay_batch_size:
        parts.append(f"up to {counted(settings.replay_batch_size, 'question')} about earlier rounds")
    rounds = counted(trainer.planned_rounds, "round")
    if settings.max_rounds is None:
        rounds += f" ({counted(config.trainer.total_epochs, 'pass', 'passes')} over the notes)"
    return f"{rounds} of {', '.join(parts[:-1])} and {parts[-1]}"


def time_line(trainer: MedSeRLTrainer) -> str:
    """About how long the rounds to go will take: by this run's own rounds, or by what was seen with the tiny model."""
    from medserl.run.run_log import METRICS_FILE, read_metrics
    from medserl.ward import model_dir

    path = trainer.run_dir.path / METRICS_FILE
    rows = [row for row in (read_metrics(path) if path.is_file() else []) if row.get("timing_s/step")]
    done = max((int(row["round"]) for row in rows), default=0)
    left = max(trainer.planned_rounds - done, 0)
    if not left:
        return "all rounds are played"
    if rows:
        seconds = median(row["timing_s/step"] + row.get("timing_s/validate", 0.0) for row in rows[-20:])
        to_go = counted(left, "round")
        return f"about {_minutes(left * seconds)} for the {to_go} to go, as this run's last rounds took"
    if str(trainer.config.actor_rollout_ref.model.path) != str(model_dir()) or trainer.config.trainer.device != "cpu":
        return "not known before the first rounds; each round's line says how much is left"
    again = trainer.settings.replay_batch_size
    notes = trainer.config.data.train_batch_size - again
    seconds = WARD_START + left * (WARD_SECONDS * notes + WARD_AGAIN * again)
    return f"about {_minutes(seconds)} on two idle cores"


def _minutes(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 1:
        return "a minute"
    return counted(minutes, "minute") if minutes < 120 else f"{seconds / 3600:.1f} hours"


def held_out(trainer: MedSeRLTrainer) -> str:
    """What the run is validated on, and how often."""
    from medserl.config.plugins import has_validation_notes

    settings, every = trainer.settings.validation, trainer.config.trainer.test_freq
    if not has_validation_notes(trainer.settings):
        return "nothing: no medserl.validation.path"
    if every <= 0:
        return "nothing: trainer.test_freq is off"
    patients = counted(settings.count, "synthetic patient")
    own = patients if trainer.settings.notes.source == "ward" else "the note source's own"
    return f"{settings.path or own}, every {counted(every, 'round') if every > 1 else 'round'}"
