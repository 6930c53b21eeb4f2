"""The directory of a pipeline: what is refused, in a sentence, and that a refusal leaves nothing behind."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from medserl.cli.main import main
from medserl.errors import ConfigError
from medserl.pipeline.directory import check_directory, removed_on_failure
from medserl.pipeline.page import write_page
from medserl.pipeline.plan import DONE, RECORDED, SETTINGS, STAGES, WRITTEN, Folders, Request


def request(out: Path, **more: Any) -> Request:
    return Request(out, **{"count": 40, "model": "builtin:ward", **more})


def check(out: Path, **more: Any) -> None:
    check_directory(Folders(out), request(out, **more))


def write_stage(out: Path, stage: str) -> None:
    """What a stage leaves, in name only."""
    for name in WRITTEN[stage]:
        path = out / stage / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            path.write_text("{}")


def written(stage: str) -> dict[str, Any]:
    """What it puts into its last file."""
    return {key: kind() for key, kind in RECORDED[stage].items()}


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """A pipeline that came to its end."""
    out = tmp_path / "out"
    for stage in STAGES:
        write_stage(out, stage)
        (out / stage / DONE).write_text(json.dumps(written(stage)))
    (out / SETTINGS).write_text(json.dumps(request(out).record()))
    check(out)
    return out


def test_a_directory_belongs_to_one_request(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    check(out)
    (out / "thesis.tex").write_text("precious")
    with pytest.raises(ConfigError, match="not a pipeline's"):
        check(out)
    (out / "thesis.tex").unlink()
    (out / SETTINGS).write_text(json.dumps(request(out).record()))
    check(out)
    with pytest.raises(ConfigError, match="count: 40 there, 41 now"):
        check(out, count=41)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"7", b"null", b"\xff\xfe", b"[" * 100000, None])
@pytest.mark.parametrize("name", [SETTINGS, *(f"{stage}/{DONE}" for stage in STAGES)])
def test_a_damaged_record_is_named(finished: Path, name: str, content: bytes | None) -> None:
    (finished / name).unlink()
    if content is None:
        (finished / name).mkdir()
    else:
        (finished / name).write_bytes(content)
    with pytest.raises(ConfigError, match=f"{finished / name}[:,].*; restore it, or give another --out"):
        check(finished)


@pytest.mark.parametrize(("stage", "key"), [(stage, key) for stage in STAGES for key in RECORDED[stage]])
def test_a_record_without_what_the_page_shows_is_named(finished: Path, stage: str, key: str) -> None:
    record = {**written(stage), key: None}
    (finished / stage / DONE).write_text(json.dumps(record))
    with pytest.raises(ConfigError, match=f"{stage}/{DONE}: '{key}' is missing or damaged; restore it"):
        check(finished)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ('{\n"texts": 1,,', "line 2: is not JSON"),
        ('{"texts": 1, "first": {}, "second": []}', "'second' is missing or damaged"),
        ('{"texts": 1, "first": {}, "second": {}}', "'first' lacks a metric"),
    ],
)
def test_a_damaged_comparison_is_named_by_the_page(finished: Path, content: str, told: str) -> None:
    (finished / "report/comparison.json").write_text(content)
    with pytest.raises(ConfigError, match=f"report/comparison.json.*{told}.*remove .*report/done.json to have it made"):
        write_page(Folders(finished), request(finished))


@pytest.mark.parametrize(("stage", "name"), [(stage, name) for stage in STAGES for name in WRITTEN[stage]])
def test_a_stage_that_is_marked_done_must_have_left_what_it_made(finished: Path, stage: str, name: str) -> None:
    (finished / stage / name).unlink()
    with pytest.raises(ConfigError, match=f"stage {stage} is marked done, but {stage}/{name} is gone; put it back, or"):
        check(finished)
    (finished / stage / DONE).unlink()
    check(finished)


@pytest.mark.parametrize("out", ["file", "file/out", "nowhere", "/proc/out", "n" * 300, "deep/" + "n" * 300 + "/er"])
def test_a_directory_that_cannot_be_made_is_refused(
    tmp_path: Path, out: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")
    held = sorted(tmp_path.rglob("*"))
    with pytest.raises(ConfigError, match="--out .*: cannot be written|not a pipeline's"):
        check(tmp_path / out)
    assert sorted(tmp_path.rglob("*")) == held


def test_one_that_may_not_be_written_is_refused(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    code = (
        "from pathlib import Path; from medserl.pipeline.directory import check_directory\n"
        "from medserl.pipeline.plan import *\ncheck_directory(Folders(Path('out')), Request(Path('out')))"
    )
    prefix = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.getuid() == 0 else []
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([*prefix, sys.executable, "-c", code], cwd=closed, env=environment, capture_output=True)
    assert b"--out out: cannot be written (Permission denied); give another --out" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "told", "there"),
    [
        (["nope.jsonl"], "nope.jsonl: no such file", "nothing"),
        (["bad.jsonl"], "bad.jsonl, row 1: 'note_id' is missing", "folders above"),
        (["--count", "4"], "4 notes are fewer than one round's medserl.rollout_batch_size 32", "an empty folder"),
    ],
)
def test_a_request_that_cannot_work_leaves_nothing_so_that_the_corrected_one_can(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    told: str,
    there: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("bad.jsonl").write_text("{}\n")
    out = Path("deep/er/out")
    if there != "nothing":
        (out if there == "an empty folder" else out.parent).mkdir(parents=True)
    held = sorted(tmp_path.rglob("*"))
    assert main(["pipeline", *arguments, "--out", str(out), "--skip-warm-start"]) == 2
    assert told in capsys.readouterr().err.splitlines()[-1]
    assert sorted(tmp_path.rglob("*")) == held


def test_what_was_there_before_stays_when_a_later_start_fails(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / SETTINGS).write_text("{}")
    with pytest.raises(KeyboardInterrupt), removed_on_failure(tmp_path / "out"):
        (tmp_path / "out/prepare").mkdir()
        raise KeyboardInterrupt
    assert (tmp_path / "out" / SETTINGS).exists()
