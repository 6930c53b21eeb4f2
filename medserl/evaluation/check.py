"""``medserl check``: a model's opinion of notes that nobody has labelled, as a private CSV for whoever wrote them."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medserl.data.records import LabelledExample
from medserl.errors import ConfigError, Problems
from medserl.evaluation import engine
from medserl.evaluation.kept import kept_beside
from medserl.evaluation.model import model_sha256
from medserl.evaluation.run import Request, looked_at, token_limit
from medserl.evaluation.votes import Vote, majority
from medserl.files import read_json, write_atomically
from medserl.game.labels import Label
from medserl.run.checkpoint import EXPORT_RECORD

if TYPE_CHECKING:
    from medserl.game.prompts import PromptSet

COLUMNS = ("note_id", "p_error", "verdict", "suspected_sentence", "suggested_correction", "remark")
NO_DEVICE = (
    "This is the output of a research model, not a medical device: do not use it for the care of patients. A note that "
    "is not suspected may hold an error, and a suspected one may be right."
)
NOT_KNOWN = "not known: no validation of a training run came with it; measure it with `medserl evaluate`"
NO_SENTENCE = "the model named no sentence of the note"
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True, slots=True)
class Finding:
    """What the model said about one note."""

    note_id: str
    p_error: float | None
    """Probability of INCORRECT at the verdict's first token; the share of such votes where there is none."""
    verdict: Label | None
    """None where no reply could be read."""
    sentence: str = ""
    correction: str = ""
    remark: str = ""

    @property
    def order(self) -> tuple[int, float, str]:
        """The most suspected first, notes without a verdict last."""
        return (self.verdict is None, -(self.p_error or 0.0), self.note_id)

    def cells(self) -> tuple[str, ...]:
        """As `COLUMNS`, each safe to open in a spreadsheet, which would run a cell that begins like a formula."""
        shown = "" if self.p_error is None else f"{self.p_error:.3f}"
        verdict = "" if self.verdict is None else self.verdict.value
        texts = (self.note_id, shown, verdict, self.sentence, self.correction, self.remark)
        return tuple(f"'{text}" if text.startswith(_FORMULA) else text for text in texts)


def finding(example: LabelledExample, votes: Sequence[Vote]) -> Finding:
    """The majority of a note's replies as a row."""
    vote = majority(votes)
    if vote.answer is None:
        return Finding(example.note_id, None, None, remark=f"no verdict: {vote.failure}")
    answers = [own.answer for own in votes if own.answer is not None]
    probability = vote.p_incorrect
    if probability is None:
        probability = answers.count(Label.INCORRECT) / len(answers)
    if vote.answer is Label.CORRECT:
        return Finding(example.note_id, probability, vote.answer)
    place = vote.sentence_id
    inside = place is not None and 0 <= place < len(example.sentences)
    sentence = " ".join(example.sentences[place].split()) if inside and place is not None else ""
    remark = "" if sentence else NO_SENTENCE
    return Finding(example.note_id, probability, vote.answer, sentence, vote.correction or "", remark)


def held_out_accuracy(model: Path) -> str:
    """What is known of a model's accuracy on held-out notes, from the record of its export."""
    try:
        found = read_json(model / EXPORT_RECORD)["validation"]
        right, balanced = found["accuracy"], found["balanced_accuracy"]
        return f"{right:.1%} ({balanced:.1%} balanced) on the {found['texts']} texts of its run's validation"
    except (OSError, ValueError, LookupError, TypeError):
        return NOT_KNOWN


def write_findings(out: Path, findings: Iterable[Finding], heading: Sequence[str]) -> None:
    """Write the CSV (mode 0600, with a mark that spreadsheets know UTF-8 by), or nothing."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerows([f"# {line}"] for line in heading)
    writer.writerow(COLUMNS)
    writer.writerows(item.cells() for item in sorted(findings, key=lambda item: item.order))
    write_atomically(out, "\ufeff" + text.getvalue())


def check_place(out: Path) -> None:
    """ConfigError where the CSV cannot be a new file."""
    if out.exists() or out.is_symlink():
        raise ConfigError(f"--out {out}: already exists; give another file")
    if not out.absolute().parent.is_dir():
        raise ConfigError(f"--out {out}: there is no folder {out.absolute().parent}; create it first")


def check_notes(notes: Path, out: Path, request: Request) -> tuple[list[Finding], list[str]]:
    """Ask the model about every note of a file and write the CSV.

    Args:
        notes: Any file that training reads; labels in it are not looked at.
        out: The CSV to make.
        request: Model, engine and sampling; ``data`` is not looked at.

    Returns:
        The findings, and the lines above them.

    Raises:
        UserError: notes, a model or a setting that cannot work; nothing was started then.
    """
    from medserl.data import read_labelled

    problems, examples = Problems(), list[LabelledExample]()
    with problems.noted():
        check_place(out)
    with problems.noted():
        examples = read_labelled(notes)
    ready = looked_at(request, problems)
    directory, config, prompts = ready.directory, ready.config, ready.prompts
    output_format = "full" if prompts.has_full else "flag"
    decoding = engine.Decoding(
        output_format=output_format,
        samples=request.samples,
        temperature=ready.temperature,
        max_tokens=request.max_tokens or token_limit(config, output_format),
        seed=request.seed,
        thinking=ready.thinking,
        verdict_alone=True,
    )
    chats = [_chat(prompts, output_format, example) for example in examples]
    counts = [len(example.sentences) for example in examples]
    options = engine.engine_options(config)
    heading = [
        f"{notes.name}: {len(examples)} texts, model {directory.name}, {time.strftime('%Y-%m-%d')}",
        f"Held-out accuracy of this model: {held_out_accuracy(directory)}",
        NO_DEVICE,
    ]
    with kept_beside(out) as kept:
        kept.take_up([model_sha256(directory), chats, options, asdict(decoding)], len(chats), decoding.samples)
        votes = engine.assess(directory, chats, counts, options, decoding, kept)
        findings = [finding(example, own) for example, own in zip(examples, votes, strict=True)]
        write_findings(out, findings, heading)
    return findings, heading


def _chat(prompts: PromptSet, output_format: str, example: LabelledExample) -> Any:
    if output_format == "flag":
        return prompts.assessor(example.text)
    return prompts.assessor_full(example.text, example.sentences)
