"""Takes notes that are too long for a model out of prepared data; each one is listed in the manifest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from medserl.data.prepare import MANIFEST
from medserl.data.records import base_id
from medserl.data.stats import Counter, long_notes
from medserl.data.write import rewrite_without
from medserl.errors import DataError
from medserl.files import read_object, sha256_of, write_atomically


def drop_long_notes(folder: Path, counter: Counter, limit: int) -> dict[str, int]:
    """Rewrite the splits of ``folder`` without the notes of which a prompt needs more than ``limit`` tokens.

    The prompts are those that the game can make of a note (`medserl data stats` counts the same ones), room for an
    edit included, in every split: a test note that could not be trained on is left out too.

    Args:
        folder: What `medserl.data.prepare.prepare` wrote.
        counter: The prompts of the configuration that will train.
        limit: Most tokens of a prompt.

    Returns:
        Rows dropped, by split; the manifest lists them under ``dropped`` with their reason.

    Raises:
        DataError: nothing is left of a split.
        ConfigError: the manifest is damaged.
    """
    manifest = read_object(folder / MANIFEST, "prepare the data again", {"splits": dict, "outputs": dict})
    reason = f"a prompt needs more than {limit} tokens"
    dropped: dict[str, int] = {}
    listed: list[dict[str, Any]] = []
    for split in manifest["splits"]:
        path = folder / f"{split}.parquet"
        gone: list[str] = []
        if too_long := {base_id(note_id) for note_id in long_notes(path, counter, limit)}:
            counts = rewrite_without(path, too_long, gone.append)
            if not counts.rows:
                raise DataError(f"{path.name}: every note has a prompt of more than {limit} tokens; raise the limit")
            manifest["splits"][split] = counts.as_dict()
            manifest["outputs"][path.name] = {"sha256": sha256_of(path), "bytes": path.stat().st_size}
        dropped[split] = len(gone)
        listed += [{"file": path.name, "row": None, "note_id": note_id, "reason": reason} for note_id in gone]
    if listed:
        manifest["dropped"]["counts"][reason] = len(listed)
        manifest["dropped"]["first"][reason] = [item["note_id"] for item in listed[:3]]
        manifest["dropped"]["rows"] += listed
        write_atomically(folder / MANIFEST, json.dumps(manifest, indent=1, ensure_ascii=False) + "\n")
    return dropped
