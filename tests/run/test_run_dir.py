"""A run directory belongs to one configuration and to one process at a time."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from medserl.errors import ConfigError
from medserl.game import load_prompt_set
from medserl.run import checkpoint
from medserl.run.identity import differences
from medserl.run.layout import leave_random_states
from medserl.run.run_dir import CONFIG_FILE, LOCK_FILE, PROVENANCE_FILE, RunDir
from medserl.run.run_log import RunLog


def config(**changes: object):  # type: ignore[no-untyped-def]
    base = OmegaConf.create(
        {
            "medserl": {"seed": 1, "max_rounds": None},
            "trainer": {"total_epochs": 1},
            "algorithm": {"gamma": 1.0},
        }
    )
    for key, value in changes.items():
        OmegaConf.update(base, key.replace("__", "."), value)
    return base


def test_it_records_configuration_and_every_start(tmp_path: Path) -> None:
    for _ in range(2):
        run = RunDir(tmp_path / "run")
        run.open(config(), "embedded", ["medserl.seed=1"])
        run.close()
    assert OmegaConf.load(tmp_path / "run" / CONFIG_FILE) == config()
    starts = json.loads((tmp_path / "run" / PROVENANCE_FILE).read_text())["starts"]
    assert len(starts) == 2
    assert starts[0]["overrides"] == ["medserl.seed=1"]
    assert set(starts[0]) >= {"git_commit", "packages", "python", "started", "medserl", "config"}


def test_it_records_what_else_it_is_told_of_a_start(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    run.open(config(), "embedded", [], {"prompt_set": load_prompt_set("ward").record()})
    run.close()
    record = json.loads((tmp_path / "run" / PROVENANCE_FILE).read_text())["starts"][0]["prompt_set"]
    assert record == {"name": "ward", "version": "1", "sha256": load_prompt_set("ward").sha256}


def test_it_is_private(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    run.open(config(), "embedded", [])
    run.close()
    assert (tmp_path / "run").stat().st_mode & 0o077 == 0
    assert (tmp_path / "run" / CONFIG_FILE).stat().st_mode & 0o077 == 0


def test_another_configuration_is_refused_with_the_key(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    run.open(config(), "embedded", [])
    run.close()
    with pytest.raises(ConfigError, match=r"algorithm\.gamma: 1\.0 there, 0\.9 now"):
        RunDir(tmp_path / "run").check(config(algorithm__gamma=0.9))


def test_a_longer_run_may_go_on(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    run.open(config(), "embedded", [])
    run.close()
    RunDir(tmp_path / "run").check(config(medserl__max_rounds=10, trainer__total_epochs=3))


def test_a_directory_that_was_moved_may_go_on(tmp_path: Path) -> None:
    from medserl.config.load import load_config

    before, after = (load_config("embedded", [f"medserl.run_dir={tmp_path / name}"]) for name in ("run", "moved"))
    assert differences(before, after) == []


TP = "actor_rollout_ref__actor__megatron__tensor_model_parallel_size"


@pytest.mark.parametrize(
    ("layout", "allowed"),
    [
        (None, True),  # no checkpoint: nothing has to be resharded
        ({"tp": 2, "pp": 1, "workers": 2, "reshardable": True}, True),
        ({"tp": 2, "pp": 1, "workers": 2, "reshardable": False}, False),
        ("of an earlier version", False),
    ],
)
def test_another_layout_may_go_on_where_its_checkpoint_can_be_resharded(
    tmp_path: Path, layout: object, allowed: bool
) -> None:
    run = RunDir(tmp_path / "run")
    run.open(config(**{TP: 2, "trainer__n_gpus_per_node": 2}), "embedded", [])
    run.close()
    if layout is not None:
        checkpoint.staging_dir(run.checkpoints).joinpath("global_step_3").mkdir()
        state = {} if isinstance(layout, str) else {"layout": layout}
        checkpoint.publish(run.checkpoints, 3, state, None)
    other = config(**{TP: 1, "trainer__n_gpus_per_node": 4})
    if allowed:
        RunDir(tmp_path / "run").check(other)
    else:
        with pytest.raises(ConfigError, match=r"another layout .*tensor_model_parallel_size: 2 there, 1 now.*step_3"):
            RunDir(tmp_path / "run").check(other)
    with pytest.raises(ConfigError, match="belongs to another configuration"):
        RunDir(tmp_path / "run").check(config(**{TP: 1, "algorithm__gamma": 0.9}))


def test_random_states_of_another_layout_are_left_out(tmp_path: Path) -> None:
    staged = checkpoint.staging_dir(tmp_path) / "global_step_3"
    staged.mkdir()
    written = {"tp": 2, "pp": 1, "workers": 2, "reshardable": True}
    newest = checkpoint.publish(tmp_path, 3, {"layout": written}, None)
    contents = ["model", "optimizer", "extra"]

    def present(tp: int, pp: int):  # type: ignore[no-untyped-def]
        actor = {
            "megatron": {"tensor_model_parallel_size": tp, "pipeline_model_parallel_size": pp},
            "checkpoint": {"load_contents": contents},
        }
        return OmegaConf.create(
            {
                "actor_rollout_ref": {"actor": actor},
                "critic": {"checkpoint": {"load_contents": contents}},
                "trainer": {"nnodes": 1, "n_gpus_per_node": tp * pp},
            }
        )

    for tp, pp, wanted in ((2, 1, contents), (1, 2, ["model", "optimizer"]), (2, 2, ["model", "optimizer"])):
        here = present(tp, pp)
        assert leave_random_states(here, newest) is (wanted != contents)
        assert here.actor_rollout_ref.actor.checkpoint.load_contents == wanted
    assert not leave_random_states(present(1, 1), None)


def test_somebody_elses_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(ConfigError, match="MedSeRL did not make it"):
        RunDir(tmp_path).check(config())


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    run.open(config(), "embedded", [])
    code = (
        "from pathlib import Path; from omegaconf import OmegaConf\n"
        "from medserl.run.run_dir import RunDir\n"
        f"p = Path({str(tmp_path / 'run')!r}); RunDir(p).open(OmegaConf.load(p / 'config.yaml'), 'x', [])"
    )
    second = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    run.close()
    assert second.returncode != 0
    assert "is running in it" in second.stderr
    third = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert third.returncode == 0, third.stderr


def test_differences_name_missing_keys_too() -> None:
    assert differences(OmegaConf.create({"a": 1}), OmegaConf.create({"b": {"c": 2}})) == [
        "a: 1 there, None now",
        "b.c: None there, 2 now",
    ]


def test_it_remembers_how_each_start_ended(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    run.open(config(), "embedded", [])
    assert run.previous_end() == {}
    run.note_end({"rounds": [0, 3], "stopped_by": "signal 10"})
    run.close()
    run.open(config(), "embedded", [])
    assert run.previous_end()["rounds"] == [0, 3] and run.previous_end()["stopped_by"] == "signal 10"
    run.close()
    starts = json.loads((tmp_path / "run" / PROVENANCE_FILE).read_text())["starts"]
    assert "ended" in starts[0] and "ended" not in starts[1], "the second is under way, or was killed"


def test_a_file_system_without_locks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.flock", no_locks)
    with pytest.raises(ConfigError, match=r"cannot be locked \(No locks available\); give a --run-dir on"):
        RunDir(tmp_path / "run").open(config(), "embedded", [])


@pytest.mark.parametrize("umask", [0o022, 0o000, 0o077])
@pytest.mark.parametrize("mode", [None, 0o755, 0o777, 0o750, 0o700])
def test_everything_in_it_is_private_whatever_was_there_and_the_umask(
    tmp_path: Path, umask: int, mode: int | None
) -> None:
    """Files of the process itself, of its children, and those that a library makes without a word about modes."""
    path, before = tmp_path / "run", os.umask(umask)
    try:
        if mode is not None:
            path.mkdir()
            path.chmod(mode)
        run = RunDir(path)
        run.open(config(), "embedded", [])
        log = RunLog(path, 0, 3)
        log.round(1, 0, {"a": 1.0})
        log.close()
        staged = checkpoint.staging_dir(run.checkpoints) / "global_step_1/actor"
        staged.mkdir(parents=True)
        (staged / "weights").write_text("w")
        checkpoint.publish(run.checkpoints, 1, {}, None)
        subprocess.run([sys.executable, "-c", f"open({str(path / 'child')!r}, 'w')"], check=True)
        run.close()
        assert os.umask(umask) == umask, "given back"
    finally:
        os.umask(before)
    found = [path, *path.rglob("*")]
    assert len(found) > 8
    assert [item for item in found if item.stat().st_mode & 0o077] == []


def test_a_directory_of_an_earlier_version_is_closed(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    run.open(config(), "embedded", [])
    run.close()
    (tmp_path / "run/checkpoints").mkdir(mode=0o755)
    (tmp_path / "run/checkpoints/weights").write_text("w")
    outside = tmp_path / "shared"
    outside.write_text("somebody's")
    outside.chmod(0o644)
    (tmp_path / "run/link").symlink_to(outside)
    for item in (tmp_path / "run", *(tmp_path / "run").rglob("*")):
        if not item.is_symlink():
            item.chmod(item.stat().st_mode | 0o044)
    run.open(config(), "embedded", [])
    run.close()
    assert all(not item.lstat().st_mode & 0o077 for item in (tmp_path / "run").rglob("*") if not item.is_symlink())
    assert outside.stat().st_mode & 0o777 == 0o644, "what a link leads to is none of the run's"


def test_somebody_elses_open_directory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run"
    path.mkdir(mode=0o700)
    path.chmod(0o755)
    monkeypatch.setattr(os, "geteuid", lambda: path.stat().st_uid + 1)
    with pytest.raises(ConfigError, match="belongs to another user .* is open to others"):
        RunDir(path).open(config(), "embedded", [])
    assert list(path.iterdir()) == []


def test_a_run_that_ended_between_check_and_lock_is_not_overwritten(tmp_path: Path) -> None:
    first, second = RunDir(tmp_path / "run"), RunDir(tmp_path / "run")
    lock = second._take_lock

    def late() -> None:
        first.open(config(medserl__seed=1), "embedded", [])
        first.close()
        lock()

    second._take_lock = late  # type: ignore[method-assign]
    with pytest.raises(ConfigError, match=r"medserl\.seed: 1 there, 9 now"):
        second.open(config(medserl__seed=9), "embedded", [])
    assert OmegaConf.load(tmp_path / "run" / CONFIG_FILE).medserl.seed == 1
    third = RunDir(tmp_path / "run")
    third.open(config(medserl__seed=1), "embedded", [])  # the lock was given back
    third.close()


def test_starting_anew_where_there_are_checkpoints_is_refused(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    run.open(config(), "embedded", [])
    run.close()
    anew = config(trainer__resume_mode="disable")
    RunDir(tmp_path / "run").check(anew)
    checkpoint.staging_dir(run.checkpoints).joinpath("global_step_3").mkdir()
    checkpoint.publish(run.checkpoints, 3, {}, None)
    held = {item: item.stat().st_mtime_ns for item in (tmp_path / "run").rglob("*")}
    with pytest.raises(ConfigError, match="resume_mode: disable, but .* give another --run-dir"):
        RunDir(tmp_path / "run").open(anew, "embedded", [])
    assert held == {item: item.stat().st_mtime_ns for item in (tmp_path / "run").rglob("*")}
    RunDir(tmp_path / "run").check(config(trainer__resume_mode="auto"))


@pytest.mark.parametrize("there", ["nothing", "an empty folder", "a run", "a run with a checkpoint"])
@pytest.mark.parametrize(
    "asked",
    [
        {"trainer__resume_mode": "resume_path"},
        {"trainer__resume_from_path": "elsewhere/global_step_3"},
        {"trainer__resume_mode": "resume_path", "trainer__resume_from_path": "elsewhere/global_step_3"},
    ],
)
def test_going_on_from_a_checkpoint_elsewhere_is_refused(tmp_path: Path, there: str, asked: dict[str, str]) -> None:
    """It would be overruled by the run directory's own newest one, or by none, without a word."""
    run = RunDir(tmp_path / "run")
    if there == "an empty folder":
        run.path.mkdir()
    elif there != "nothing":
        run.open(config(), "embedded", [])
        run.close()
    if there == "a run with a checkpoint":
        checkpoint.staging_dir(run.checkpoints).joinpath("global_step_3").mkdir()
        checkpoint.publish(run.checkpoints, 3, {}, None)
    held = sorted(tmp_path.rglob("*"))
    with pytest.raises(ConfigError, match="resume_from_path: .* newest whole checkpoint of its own run directory only"):
        RunDir(tmp_path / "run").open(config(**asked), "embedded", [])
    assert sorted(tmp_path.rglob("*")) == held


DAMAGED = {
    "": "lacks",
    "a: [": "cannot be read",
    "\x00" * 20: "cannot be read",
    "7": "cannot be read|lacks",
    "- a\n": "is a list",
    "{}\n": "lacks algorithm, medserl, trainer",
    "a: 1\n": "lacks algorithm, medserl, trainer",
    "a: ${b}\n": "lacks",
    "medserl:\n  seed: 1\n  max_rounds: null\ntrainer:\n": "lacks algorithm",
    "b\x80": "cannot be read",
}


@pytest.mark.parametrize(("content", "told"), DAMAGED.items())
def test_a_damaged_configuration_is_refused_in_a_sentence(tmp_path: Path, content: str, told: str) -> None:
    """Not as another configuration, with a list of all the keys that are not there any more."""
    (tmp_path / CONFIG_FILE).write_bytes(content.encode("latin-1"))
    with pytest.raises(ConfigError, match=f"its {CONFIG_FILE} ({told}).*; restore it, or give another --run-dir"):
        RunDir(tmp_path).check(config())


@pytest.fixture
def begun(tmp_path: Path) -> RunDir:
    """A run directory with everything that a start leaves there."""
    run = RunDir(tmp_path / "run")
    run.open(config(), "embedded", [])
    run.close()
    for name in ("checkpoints", "logs", "games", "tensorboard"):
        (run.path / name).mkdir()
    for name in ("metrics.jsonl", "metrics.aside.jsonl", "train.log"):
        (run.path / name).touch()
    run.check(config())
    return run


ENTRIES = (
    *(LOCK_FILE, CONFIG_FILE, PROVENANCE_FILE, "inputs.json", "metrics.jsonl", "metrics.aside.jsonl", "train.log"),
    *("checkpoints", "logs", "games", "tensorboard"),
)


@pytest.mark.parametrize("name", ENTRIES)
@pytest.mark.parametrize("instead", ["the other kind", "a link into nowhere"])
def test_a_file_where_a_folder_should_be_is_named_before_anything_is_written(
    begun: RunDir, name: str, instead: str
) -> None:
    path = begun.path / name
    folder = path.is_dir()
    path.rmdir() if folder else path.unlink()
    if instead == "a link into nowhere":
        path.symlink_to(begun.path / "nowhere")
    elif folder:
        path.write_text("x")
    else:
        path.mkdir()
    held = {item: item.lstat().st_mtime_ns for item in begun.path.rglob("*")}
    told = (
        f"its {name} is not a {'folder' if folder else 'file'}; move it away|is not empty, and MedSeRL did not make it"
    )
    with pytest.raises(ConfigError, match=told):
        begun.open(config(), "embedded", [])
    assert held == {item: item.lstat().st_mtime_ns for item in begun.path.rglob("*")}


@pytest.mark.parametrize("harm", ["cut", "other content", "no manifest"])
def test_a_run_whose_checkpoints_are_all_damaged_does_not_begin_anew(begun: RunDir, harm: str) -> None:
    """It would write in their place, and empty the records of the rounds that they hold."""
    for step in (3, 6):
        weights = checkpoint.staging_dir(begun.checkpoints) / f"global_step_{step}/actor/w"
        weights.parent.mkdir(parents=True)
        weights.write_text("weights")
        checkpoint.publish(begun.checkpoints, step, {}, None)
    whole = (begun.checkpoints / "global_step_3/actor/w").read_text()
    for step in (3, 6):
        folder = begun.checkpoints / f"global_step_{step}"
        if harm == "no manifest":
            (folder / checkpoint.MANIFEST).unlink()
        else:
            (folder / "actor/w").write_text("w" if harm == "cut" else "WEIGHTS")
    (begun.path / "metrics.jsonl").write_text('{"round": 1}\n')
    held = {item: item.lstat().st_mtime_ns for item in begun.path.rglob("*") if item.name != LOCK_FILE}
    refused = (
        r"none of its checkpoints \(3, 6\) is whole \(global_step_6: .*restore one of them, or give another --run-dir"
    )
    with pytest.raises(ConfigError, match=refused):
        begun.open(config(), "embedded", [])
    assert held == {item: item.lstat().st_mtime_ns for item in begun.path.rglob("*") if item.name != LOCK_FILE}
    with pytest.raises(ConfigError, match=refused):  # as a dry run looks
        begun.check_checkpoints(content=True)
    if harm != "no manifest":
        (begun.checkpoints / "global_step_3/actor/w").write_text(whole)
        begun.open(config(), "embedded", [])
        assert begun.newest() == begun.checkpoints / "global_step_3"
        begun.close()


@pytest.mark.parametrize("name", ENTRIES)
def test_what_may_not_be_written_is_named_before_anything_is(
    begun: RunDir, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root may write everything, so the system's answer is a stand-in's."""
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: access(path, mode) and Path(path).name != name)
    with pytest.raises(ConfigError, match=f"its {name} cannot be read and written by you; give yourself the right"):
        begun.open(config(), "embedded", [])


@pytest.mark.parametrize("place", ["x", "checkpoints", "checkpoints/run", "logs/1/deep/er"])
def test_a_run_inside_another_one_is_refused(begun: RunDir, place: str) -> None:
    with pytest.raises(ConfigError, match=f"lies inside {begun.path}, the directory of another run; give one beside"):
        RunDir(begun.path / place).check(config())
    RunDir(begun.path.with_name("beside")).check(config())


@pytest.mark.parametrize("content", ["", "{", "[]", "{}"])
def test_a_damaged_record_of_starts_is_kept_aside(tmp_path: Path, content: str) -> None:
    for damaged in (False, True):
        run = RunDir(tmp_path / "run")
        if damaged:
            (run.path / PROVENANCE_FILE).write_text(content)
        run.open(config(), "embedded", [])
        run.note_end({"rounds": [0, 1]})
        run.close()
    assert (run.path / f"{PROVENANCE_FILE}.damaged").read_text() == content
    assert len(json.loads((run.path / PROVENANCE_FILE).read_text())["starts"]) == 1
