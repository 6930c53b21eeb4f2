"""What a cluster does to a job: limits, preemption, lost nodes, other jobs. Real Slurm and the launchers as they are;
the driver and Ray are stand-ins, so that each case takes seconds."""

import math

import pytest

from tests.cluster.slurm import NODES, Slurm

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]


def rounds(slurm: Slurm, job: int) -> list[str]:
    """Every round that was saved, in order: none may be missing or come twice."""
    path = slurm.submit_dir / "outputs" / f"medserl-{job}" / "rounds"
    return [line.split()[-1] for line in path.read_text().splitlines()]


def test_time_limit_and_two_requeues(slurm: Slurm, quick: dict[str, str]) -> None:
    """Slurm's own signal before the limit ends the first attempt, the driver's own look at the clock the second."""
    job = slurm.submit(options=("--time=30", "--signal=B:USR1@60"), DRIVER="usr1 75 0", **quick)
    slurm.wait_for(job, "driver waits", 300)
    # Slurm looks every half a minute whether a signal is due within the next half: the limit comes near only now.
    hours, minutes, seconds = map(int, slurm.fields(job)["RunTime"].split(":"))
    limit = math.ceil((hours * 3600 + minutes * 60 + seconds + 40) / 60)
    slurm.control("update", f"jobid={job}", f"timelimit={limit}")
    slurm.wait_for(job, "requeued: attempt 1", 300)
    slurm.control("update", f"jobid={job}", "timelimit=10")
    assert slurm.end(job, 400) == ("COMPLETED", 0), slurm.output(job)
    output = slurm.output(job)
    for attempt, saved in ((0, 0), (1, 2), (2, 3)):
        assert f"attempt {attempt} begins after round {saved} with 1 deadline" in output
    assert rounds(slurm, job) == ["1", "2", "3", "4"]
    assert slurm.fields(job)["Restarts"] == "2"
    logs = slurm.submit_dir / "outputs" / f"medserl-{job}.launcher" / str(job)
    assert sorted(path.name for path in logs.iterdir() if path.is_dir()) == ["attempt-0", "attempt-1", "attempt-2"]
    assert not slurm.scratch()


def test_scancel_loses_nothing_that_was_saved(slurm: Slurm, quick: dict[str, str]) -> None:
    """A plain scancel ends all; the same run directory goes on in another job."""
    job = slurm.submit(DRIVER="usr1", **quick)
    slurm.wait_for(job, "driver waits", 300)
    slurm.cancel(str(job))
    assert slurm.end(job, 400)[0] == "CANCELLED"
    run_dir = slurm.submit_dir / "outputs" / f"medserl-{job}"
    again = slurm.submit(DRIVER="0", MEDSERL_RUN_DIR=str(run_dir), **quick)
    assert slurm.end(again, 400) == ("COMPLETED", 0), slurm.output(again)
    assert "attempt 0 begins after round 1" in slurm.output(again)
    assert not slurm.scratch()  # of the first job neither
    assert rounds(slurm, job) == ["1", "2"]


def test_node_set_down(slurm: Slurm, quick: dict[str, str]) -> None:
    job = slurm.submit(DRIVER="usr1 0", **quick)
    slurm.wait_for(job, "driver waits", 300)
    slurm.control("update", f"nodename=node{NODES}", "state=down", "reason=test")
    slurm.wait_state(job, ("PENDING",), 300)
    slurm.resume(NODES)
    assert slurm.end(job, 400) == ("COMPLETED", 0), slurm.output(job)
    assert "attempt 1 begins after round 1" in slurm.output(job)
    assert rounds(slurm, job) == ["1", "2"]


@pytest.mark.parametrize("node", [pytest.param(1, marks=pytest.mark.nightly), NODES])
def test_node_crash(slurm: Slurm, quick: dict[str, str], node: int) -> None:
    """Everything on a node is gone at once: Slurm sees it after SlurmdTimeout (15 s here) and requeues the job."""
    job = slurm.submit(DRIVER="usr1 0", **quick)
    slurm.wait_for(job, "driver waits", 300)
    slurm.node("crash", node)
    slurm.wait_state(job, ("PENDING",), 300)
    slurm.node("boot", node)
    assert slurm.end(job, 400) == ("COMPLETED", 0), slurm.output(job)
    assert "attempt 1 begins after round 1" in slurm.output(job)
    assert rounds(slurm, job) == ["1", "2"]


def test_preemption(slurm: Slurm, quick: dict[str, str]) -> None:
    """A job of a higher partition: the training saves its round, makes room and goes on afterwards."""
    job = slurm.submit(DRIVER="usr1 0", **quick)
    slurm.wait_for(job, "driver waits", 300)
    urgent = slurm.submit(options=("--partition=urgent", "--job-name=urgent"), DRIVER="0", **quick)
    assert slurm.end(urgent, 400) == ("COMPLETED", 0), slurm.output(urgent)
    assert slurm.end(job, 400) == ("COMPLETED", 0), slurm.output(job)
    assert "attempt 1 begins after round 2" in slurm.output(job)
    assert rounds(slurm, job) == ["1", "2", "3"]


def test_folder_that_is_not_shared(slurm: Slurm, quick: dict[str, str]) -> None:
    job = slurm.submit(DRIVER="0", MEDSERL_RUN_DIR="/tmp/run-on-a-local-disk", **quick)
    assert slurm.end(job, 400) == ("FAILED", 1)
    output = slurm.output(job)
    assert "node2 does not see" in output
    assert "must lie on a file system that all nodes share" in output


def test_second_job_on_a_run_directory(slurm: Slurm, quick: dict[str, str]) -> None:
    one = ("--nodes=1",)
    variables = {**quick, "MEDSERL_RUN_DIR": str(slurm.submit_dir / "outputs" / "shared-run"), "DRIVER": "usr1"}
    first = slurm.submit(script="train_singlenode", options=one, **variables)
    slurm.wait_for(first, "driver waits", 300)
    second = slurm.submit(script="train_singlenode", options=one, **variables)
    assert slurm.end(second, 400) == ("FAILED", 2)
    assert f"job {first} uses the run directory" in slurm.output(second)
    slurm.cancel("--batch", "--signal=TERM", str(first))
    assert slurm.end(first, 400) == ("FAILED", 143), slurm.output(first)


def test_job_without_progress_does_not_run_for_ever(slurm: Slurm, quick: dict[str, str]) -> None:
    """The run directory says round 9, and the driver stops there again and again: one attempt is enough."""
    run_dir = slurm.submit_dir / "outputs" / "stuck"
    (run_dir / "checkpoints").mkdir(parents=True)
    (run_dir / "checkpoints" / "latest_checkpointed_iteration.txt").write_text("9\n")
    program = slurm.submit_dir / "quick" / "bin" / "medserl"
    program.write_text(program.read_text().replace("saved; exit", "exit"))
    job = slurm.submit(DRIVER="75 75 75", MEDSERL_RUN_DIR=str(run_dir), **quick)
    assert slurm.end(job, 400) == ("FAILED", 75), slurm.output(job)
    assert "began and ended with round 9: not requeued" in slurm.output(job)
