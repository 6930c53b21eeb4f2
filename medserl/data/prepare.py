"""``medserl data prepare``: sources in, one Parquet file per split and a manifest out.

One pass over the sources writes the splits into a folder beside the target and enters every note in a register;
then leaks are looked for, dropped notes taken out again, and the folder renamed. Nothing of the size of the data
stays in memory: row groups go to disk, texts for the leak search to a temporary file.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from medserl import __version__
from medserl.data.leaks import Leak, LeakKind, NoteRegister, find_leaks
from medserl.data.near import THRESHOLD, TextSpool, band_layout
from medserl.data.splits import RATIOS, SPLITS, SplitRule
from medserl.data.write import Counts, Entry, SplitWriter, rewrite_without
from medserl.errors import ConfigError, DataError
from medserl.files import pointed_to, sha256_of, whole_folder, write_atomically
from medserl.game.columns import shown_name
from medserl.game.convert import Dropped
from medserl.game.prompts import PromptSet, load_prompt_set
from medserl.game.reader import DroppedRow, ReadReport, check_usable, converted_rows, id_of
from medserl.game.records import base_id
from medserl.game.rows import shown_path

MANIFEST = "manifest.json"
FORMAT = 1
POLICIES = ("error", "drop", "allow")
_PROGRESS_SECONDS = 5.0
_FIRST = 3  # rows that the summary names for each reason
_MEDEC_LICENCE = "MEDEC-MS (Ben Abacha et al., Findings of ACL 2025), CC BY 4.0"
_LICENCES = {"7571aec311e2fb88d9084082af2323aa579d102e1d5e1a06faf930fe4fd3977d": _MEDEC_LICENCE}
"""SHA-256 of a published file (MEDEC-MS-ValidationSet.csv) → its licence; a name proves nothing."""


@dataclass(frozen=True)
class PrepareOptions:
    """What to prepare, and how."""

    sources: Sequence[Path]
    out: Path
    given_splits: dict[Path, str] = field(default_factory=dict)
    """Split of a source, where it is said; such a source need not be in ``sources``."""
    ratios: tuple[float, float, float] = RATIOS
    prompt_set: str = "clinical"
    near_threshold: float | None = THRESHOLD
    """Least similarity of near-duplicates; None: they are not looked for."""
    leaks: str = "error"
    """``error``, ``drop`` (from train; from validation what gives test away) or ``allow``."""
    data_source: str | None = None
    """verl's column; by default the source's name without its ending."""
    licence: str | None = None
    repair_text: bool = False
    """Put right what was UTF-8, was read as Windows-1252 and saved again; the manifest lists the rows."""
    overwrite: bool = False


class Progress:
    """A line on stderr every few seconds, so that a long command shows that it lives."""

    def __init__(self) -> None:
        self._started = self._shown = time.monotonic()

    def __call__(self, what: str, count: int) -> None:
        """Tell how far it is; most calls print nothing."""
        now = time.monotonic()
        if now - self._shown >= _PROGRESS_SECONDS:
            self._shown = now
            print(f"medserl data: {what}: {count} ({now - self._started:.0f} s)", file=sys.stderr, flush=True)


def prepare(options: PrepareOptions) -> dict[str, Any]:
    """Write the splits and the manifest, which is returned.

    Raises:
        DataError: a source that is wrong, or leaks with the policy ``error``.
        ConfigError: an impossible option, or a folder that cannot be written.
    """
    try:
        return _prepare(options)
    except OSError as error:
        raise ConfigError(
            f"--out {shown_path(options.out)}: cannot be written ({error.strerror or error}); give another folder"
        ) from error


def _prepare(options: PrepareOptions) -> dict[str, Any]:
    options = replace(options, out=pointed_to(options.out))
    sources = _sources(options)
    prompts = load_prompt_set(options.prompt_set)
    if options.near_threshold is not None:
        band_layout(options.near_threshold)
    _check_out(options)
    with whole_folder(options.out, overwrite=True) as beside:
        with tempfile.TemporaryFile(dir=beside) as file:
            spool = TextSpool(file) if options.near_threshold is not None else None
            run = _Run(options, beside, prompts, NoteRegister(spool))
            for path in sources:
                run.read(path)
            run.finish()
        manifest = run.manifest()
        write_atomically(beside / MANIFEST, json.dumps(manifest, indent=1, ensure_ascii=False) + "\n")
    return manifest


def _sources(options: PrepareOptions) -> list[Path]:
    sources = list(dict.fromkeys([*options.sources, *options.given_splits]))
    if not sources:
        raise ConfigError("medserl data prepare: give at least one SOURCE or --split SPLIT=FILE")
    return sources


def _check_out(options: PrepareOptions) -> None:
    out = options.out
    if os.path.lexists(out) and not out.is_dir():
        raise ConfigError(f"--out {shown_path(out)}: already exists and is not a folder; give another one")
    if not out.is_dir() or not any(out.iterdir()):
        return
    if not options.overwrite:
        raise ConfigError(f"--out {out}: holds files already; give another folder or --overwrite")
    ours = {MANIFEST, *(f"{split}.parquet" for split in SPLITS)}
    foreign = sorted(path.name for path in out.iterdir() if path.name not in ours)
    if foreign:
        raise ConfigError(f"--out {out}: holds {foreign[0]}, which --overwrite would delete; give another folder")


class _Run:
    """The state of one preparation."""

    def __init__(self, options: PrepareOptions, folder: Path, prompts: PromptSet, register: NoteRegister) -> None:
        self._options, self._folder, self._prompts, self._register = options, folder, prompts, register
        self._writers: dict[str, SplitWriter] = {}
        self._counts: dict[str, Counts] = {}
        self._sources: list[dict[str, Any]] = []
        self._dropped: list[DroppedRow] = []
        self._remarks: list[DroppedRow] = []
        self._leaks: list[Leak] = []
        self._progress = Progress()
        self._done = 0

    def read(self, path: Path) -> None:
        """Write the rows of one source to their splits."""
        options = self._options
        rule = SplitRule(path, options.given_splits.get(path), options.ratios)
        report = ReadReport()
        name, file_name = shown_path(options.data_source or path.stem), shown_path(path.name)
        repeated = 0
        for row, converted in converted_rows(path, report, repair=options.repair_text):
            split = rule.split(row, converted.split, converted.examples[0].note_id)
            try:
                self._register.add(row, converted, split)
            except Dropped as reason:
                self._dropped.append(DroppedRow(path.name, row.number, id_of(row), str(reason)))
                repeated += len(converted.examples)
                continue
            if split not in self._writers:
                self._writers[split] = SplitWriter(self._folder / f"{split}.parquet", split, self._prompts)
            for example in converted.examples:
                self._writers[split].write(Entry(example, name, file_name, row.number))
            self._done += 1
            if not self._done % 1000:
                self._progress("notes read", self._done)
        report.examples -= repeated
        check_usable(path, report)
        self._dropped += report.dropped
        self._remarks += report.remarks
        digest = sha256_of(path)
        self._sources.append(
            {
                "name": path.name,
                "sha256": digest,
                "bytes": path.stat().st_size,
                "rows": report.rows,
                "examples": report.examples,
                "split_by": sorted(rule.used),
                "ignored_columns": [shown_name(column).strip("'") for column in report.ignored],
                "licence": options.licence or _licence(path, digest),
            }
        )

    def finish(self) -> None:
        """Close the files, look for leaks, and drop or refuse them."""
        for split, writer in self._writers.items():
            writer.close()
            self._counts[split] = writer.counts
        if self._register.spool is not None:
            self._register.spool.close_writing()
        self._leaks = find_leaks(self._register, self._options.near_threshold, self._progress)
        if self._leaks and self._options.leaks == "error":
            raise DataError(self._refusal())
        if self._options.leaks == "drop":
            for split in SPLITS:
                self._drop(split, [leak for leak in self._leaks if leak.split == split])

    def _refusal(self) -> str:
        leak, register = self._leaks[0], self._register
        count = f"{len(self._leaks)} notes are" if len(self._leaks) > 1 else "1 note is"
        like = f"{leak.kind}, similarity {leak.similarity:.2f}" if leak.kind is LeakKind.NEAR else str(leak.kind)
        return (
            f"{register.place(leak.note)}: {count} in two splits, first {register.ids[leak.note]!r} of "
            f"{leak.split!r}, which is in {register.split(leak.other)!r} as {register.ids[leak.other]!r} "
            f"({register.place(leak.other)}; {like}); give --drop-leaks to leave such notes out or --allow-leaks "
            "to keep them"
        )

    def _drop(self, split: str, leaks: list[Leak]) -> None:
        if not leaks:
            return
        register = self._register
        reasons = {base_id(register.ids[leak.note]): leak for leak in leaks}

        def note_dropped(note_id: str) -> None:
            leak = reasons[base_id(note_id)]
            other = f"{register.split(leak.other)} note {register.ids[leak.other]}"
            reason = f"leak: {leak.kind} as {other}" if leak.kind is not LeakKind.NEAR else f"leak: near {other}"
            self._dropped.append(
                DroppedRow(Path(register.file(leak.note)).name, register.row(leak.note), note_id, reason)
            )

        self._counts[split] = rewrite_without(self._folder / f"{split}.parquet", reasons.keys(), note_dropped)
        if not self._counts[split].rows:
            raise DataError(f"every note of the split {split!r} is in another split too; nothing is left of it")

    def manifest(self) -> dict[str, Any]:
        """What was done, as plain values."""
        options = self._options
        files = {split: self._folder / f"{split}.parquet" for split in SPLITS if split in self._counts}
        return {
            "format": FORMAT,
            "medserl": __version__,
            "licence": "; ".join(dict.fromkeys(source["licence"] for source in self._sources)),
            "sources": self._sources,
            "prompt_set": {"name": self._prompts.name, "assessor_sha256": _prompt_hash(self._prompts)},
            "repair_text": options.repair_text,
            "ratios": list(options.ratios) if any("ratios" in s["split_by"] for s in self._sources) else None,
            "splits": {split: self._counts[split].as_dict() for split in files},
            "outputs": {
                path.name: {"sha256": sha256_of(path), "bytes": path.stat().st_size} for path in files.values()
            },
            "dropped": _listed(self._dropped),
            "remarks": _listed(self._remarks),
            "leaks": {
                "policy": options.leaks,
                "near_threshold": options.near_threshold,
                "counts": dict(sorted(Counter(str(leak.kind) for leak in self._leaks).items())),
                "rows": [self._leak_row(leak) for leak in self._leaks],
            },
        }

    def _leak_row(self, leak: Leak) -> dict[str, Any]:
        register = self._register
        return {
            "split": leak.split,
            "id": register.ids[leak.note],
            "file": Path(register.file(leak.note)).name,
            "row": register.row(leak.note),
            "other_split": register.split(leak.other),
            "other_id": register.ids[leak.other],
            "kind": str(leak.kind),
            "similarity": round(leak.similarity, 4),
        }


def _listed(rows: list[DroppedRow]) -> dict[str, Any]:
    counts = Counter(_kind_of_reason(row.reason) for row in rows)
    first = {kind: [_place(row) for row in rows if _kind_of_reason(row.reason) == kind][:_FIRST] for kind in counts}
    return {"counts": dict(sorted(counts.items())), "first": first, "rows": [asdict(row) for row in rows]}


def _place(row: DroppedRow) -> str:
    """How the summary names a row: by its id where it has one that looks like an id."""
    usual = row.note_id is not None and len(row.note_id) <= 64 and row.note_id.isprintable()
    return str(row.note_id) if usual else f"row {row.row}"


def _kind_of_reason(reason: str) -> str:
    return "leak" if reason.startswith("leak: ") else reason


def _licence(path: Path, sha256: str | None = None) -> str:
    return _LICENCES.get(sha256 or "", f"{path.name}: not stated (--licence)")


def _prompt_hash(prompts: PromptSet) -> str:
    return hashlib.sha256(json.dumps(prompts.assessor("NOTE"), sort_keys=True).encode()).hexdigest()
