"""The launchers of slurm/ as they are, on stand-ins for Slurm and Ray: what they start, and how they end."""

import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.packaging.launcher import Cluster, make_cluster

pytestmark = pytest.mark.engine  # processes that wait for one another: seconds each, too long for the quick tests


@pytest.fixture
def cluster(root: Path, tmp_path: Path) -> Iterator[Cluster]:
    scratch = Path(f"/tmp/ml-{os.getpid()}")
    scratch.mkdir()
    (scratch / "mine").touch()
    yield make_cluster(root, tmp_path)
    assert [path.name for path in scratch.iterdir()] == ["mine"], "the launcher left its folder behind, or took another"
    (scratch / "mine").unlink()
    scratch.rmdir()


def test_runs_the_driver_on_the_whole_cluster(cluster: Cluster) -> None:
    code, output = cluster.run("actor_rollout_ref.model.path=/models/x y", "--max-rounds", "3")
    assert code == 0, output
    address = "10.1.1.1:31110"
    starts = [call for call in cluster.lines("ray@") if " start " in call]
    assert [start.split()[0] for start in starts] == ["ray@node1", "ray@node2"]
    assert "--head --port=31110" in starts[0]
    assert "--node-ip-address=10.1.1.1 --num-cpus=32 --num-gpus=4" in starts[0]
    assert "--node-ip-address=10.1.1.2 --num-cpus=32 --num-gpus=4" in starts[1]
    assert starts[1].endswith(f"--block --address={address}")
    (driver,) = cluster.lines("medserl train")
    assert driver == (
        f"medserl train --config qwen3_4b_multinode --run-dir {cluster.run_dir} "
        f"trainer.nnodes=2 trainer.n_gpus_per_node=4 ++ray_kwargs.ray_init.address={address} "
        "actor_rollout_ref.model.path=/models/x y --max-rounds 3"
    )
    steps = cluster.lines("srun")
    assert steps
    assert all("--overlap --nodes=" in step for step in steps)


def test_environment_of_the_driver(cluster: Cluster) -> None:
    """Node-local caches and temporary files, no user site, no network, no variables that verl refuses."""
    cluster.run(SLURM_JOB_END_TIME="1900000000")
    environment = dict(line.removeprefix("env ").split("=", 1) for line in cluster.lines("env "))
    tmp = cluster.node_folder
    assert environment["RAY_ADDRESS"] == "10.1.1.1:31110"  # not the one that was there
    assert environment["PYTHONNOUSERSITE"] == environment["HF_HUB_OFFLINE"] == "1"
    assert environment["TMPDIR"] == tmp
    assert {environment["TRITON_CACHE_DIR"], environment["TORCHINDUCTOR_CACHE_DIR"]} == {
        f"{tmp}/triton",
        f"{tmp}/inductor",
    }
    assert environment["MEDSERL_DEADLINE"] == "1900000000"
    assert not [name for name in environment if "VISIBLE" in name]


def test_deadline_from_scontrol_where_slurm_sets_no_variable(cluster: Cluster) -> None:
    cluster.run(END_TIME="2030-01-01T00:00:00", TZ="UTC")
    assert "env MEDSERL_DEADLINE=1893456000" in cluster.calls


def test_one_interface_for_ray_gloo_and_nccl(cluster: Cluster) -> None:
    """Without a word, the one that leads to the other nodes; else the named one."""
    cluster.run()
    assert cluster.lines("env@node2") == [
        "env@node2 GLOO_SOCKET_IFNAME=ib0",
        "env@node2 NCCL_SOCKET_IFNAME==ib0",
        "env@node2 VLLM_HOST_IP=10.1.1.2",
    ]
    (cluster.folder / "calls").unlink()
    (cluster.folder / "head-is-up").unlink()
    cluster.run(MEDSERL_INTERFACE="hsn1")
    assert "env@node1 GLOO_SOCKET_IFNAME=hsn1" in cluster.calls
    assert "env GLOO_SOCKET_IFNAME=hsn1" in cluster.calls  # the driver too


def test_interface_without_an_address_is_named(cluster: Cluster) -> None:
    code, output = cluster.run(MEDSERL_INTERFACE="nowhere0")
    assert code == 1
    assert "found no IPv4 address of node1 on nowhere0" in output


def test_drivers_exit_code_is_the_jobs(cluster: Cluster) -> None:
    code, output = cluster.run(DRIVER="42")
    assert code == 42, output
    assert "scontrol requeue" not in cluster.calls


@pytest.mark.parametrize("node", ["node1", "node2"])
def test_rays_death_on_any_node_ends_the_job(cluster: Cluster, node: str) -> None:
    code, output = cluster.run(KILL=node)  # the driver alone would go on past the limit of `run`
    assert code == 1
    assert "Ray ended on a node while the driver was running" in output


def test_lost_node_is_left_to_slurm(cluster: Cluster) -> None:
    """The job waits for Slurm's own requeue, which takes the node out, and gives up after a while."""
    code, output = cluster.run(LOSES="node2", DRIVER="1", MEDSERL_NODE_WAIT="1")
    assert code == 1
    assert "node2 does not answer: waiting for Slurm" in output
    assert f"submit again with --exclude=node2 and MEDSERL_RUN_DIR={cluster.run_dir}" in output


def test_head_that_does_not_start_is_told_at_once(cluster: Cluster) -> None:
    code, output = cluster.run(DIES_AT_START="node1")
    assert code == 1
    assert "Ray ended on node1 while starting" in output
    logs = Path(f"{cluster.run_dir}.launcher") / "4711" / "attempt-0"
    assert "ray says no" in (logs / "ray-node1.log").read_text()
    assert len([call for call in cluster.lines("ray@") if " start " in call]) == 3
    assert not cluster.lines("medserl train")


@pytest.mark.parametrize("node", ["node1", "node2"])
def test_ray_that_dies_while_starting_is_started_again(cluster: Cluster, node: str) -> None:
    """On a busy node its raylet gives up after 15 s; head and other nodes have three attempts each."""
    code, output = cluster.run(DIES_TWICE=node, GATE_WAITS="node2")
    assert code == 0, output
    starts = [call.split()[0] for call in cluster.lines("ray@") if " start " in call]
    assert sorted(starts) == sorted(["ray@node1", "ray@node2", f"ray@{node}", f"ray@{node}"])
    logs = Path(f"{cluster.run_dir}.launcher") / "4711" / "attempt-0"
    for number in (1, 2):
        log = logs / f"ray-{node}.try-{number}.log"
        told = f"Ray ended on {node} while starting, {number} of 3 times; starting it again (see {log})"
        assert output.count(told) == 1
        assert log.read_text() == f"ray says no, {number}\n"
    assert len(cluster.lines("medserl train")) == 1


def test_node_that_dies_at_every_start_ends_the_job(cluster: Cluster) -> None:
    code, output = cluster.run(DIES_AT_START="node2", GATE_WAITS="node2")
    assert code == 1, output
    assert "Ray ended on a node while starting" in output
    assert len([call for call in cluster.lines("ray@node2") if " start " in call]) == 3
    assert not cluster.lines("medserl train")


def test_nodes_that_do_not_join_end_the_job_before_the_driver_starts(cluster: Cluster) -> None:
    code, output = cluster.run(GATE="2")
    assert code == 1
    assert "not all nodes joined" in output
    assert not cluster.lines("medserl train")


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"SLURM_JOB_ID": ""}, "submit it: medserl slurm submit, or sbatch"),
        ({"SLURM_GPUS_PER_NODE": ""}, "no GPUs in this job"),
        ({"MEDSERL_VENV": "nowhere"}, "bootstrap.py setup"),
        ({"MEDSERL_TMP": "/tmp/" + "x" * 40}, "too long for socket paths"),
        ({"MEDSERL_INTERFACE": "^lo,docker0"}, "one interface by its name"),
        ({"MEDSERL_RUNTIME": "rocket"}, "not one of apptainer, docker, podman, pyxis, none"),
        ({"MEDSERL_RUNTIME": "apptainer"}, "needs MEDSERL_IMAGE"),
        ({"MEDSERL_RUNTIME": "apptainer", "MEDSERL_IMAGE": "no.sif"}, "MEDSERL_IMAGE=no.sif is not there"),
        ({"MEDSERL_SITE": "/nowhere/site.sh"}, "MEDSERL_SITE=/nowhere/site.sh cannot be read"),
        ({"MEDSERL_MODULES": "cuda/13.0"}, "module load cuda/13.0 failed"),
        ({"MEDSERL_MAX_REQUEUES": "many"}, "is not a number"),
        ({"MEDSERL_PREFLIGHT": "some"}, "not one of full, quick, none"),
    ],
)
def test_what_cannot_work_is_told_before_anything_starts(
    cluster: Cluster, variables: dict[str, str], message: str
) -> None:
    code, output = cluster.run(**variables)
    assert code == 2
    assert message in output
    assert not cluster.lines("srun")


def test_plan_and_preflight_come_before_ray(cluster: Cluster) -> None:
    code, output = cluster.run("--max-rounds", "3", PLAN="2")
    assert code == 2, output
    assert not cluster.lines("ray@")
    (plan,) = cluster.lines("medserl slurm step plan")
    assert plan.endswith(
        f"--nodes 2 --gpus-per-node 4 --cpus-per-node 32 -- train --config qwen3_4b_multinode "
        f"--run-dir {cluster.run_dir} trainer.nnodes=2 trainer.n_gpus_per_node=4 --max-rounds 3"
    )


def test_bad_node_ends_the_job_with_its_name(cluster: Cluster) -> None:
    code, output = cluster.run(BAD="node2")
    assert code == 1
    assert "bad node node2: 7 GPUs instead of 8" in output
    assert not cluster.lines("ray@")
    checks = cluster.lines("medserl slurm step check-node")
    assert len(checks) == 2
    assert all("--gpus 4 --all-reduce 10.1.1.1:31112 --nodes node1,node2 --interface ib0" in check for check in checks)


def test_preflight_can_be_left_out(cluster: Cluster) -> None:
    code, output = cluster.run(MEDSERL_PREFLIGHT="none", BAD="node2")
    assert code == 0, output


def test_secrets_stay_out_of_output_and_logs(cluster: Cluster) -> None:
    _, output = cluster.run(UCX_PROXY="http://me:a-secret-of-the-user@proxy:3128")
    logs = {path: path.read_text() for path in (cluster.folder / "outputs").rglob("*") if path.is_file()}
    assert "a-secret-of-the-user" not in "".join([output, cluster.calls, *logs.values()])
    (dump,) = [text for path, text in logs.items() if path.name == "environment.txt"]
    assert {"WANDB_API_KEY (set, not shown)", "MY_NOTE (set, not shown)", "HF_HUB_OFFLINE=1"} <= set(dump.splitlines())


def test_logs_are_for_their_owner_only(cluster: Cluster) -> None:
    cluster.run()
    folder = Path(f"{cluster.run_dir}.launcher")
    assert (folder / "4711" / "attempt-0").is_dir()
    assert not [path for path in (folder, *folder.rglob("*")) if path.stat().st_mode & 0o077]


def test_run_directory_behind_the_script_counts(cluster: Cluster) -> None:
    cluster.run("--run-dir", "elsewhere")
    assert (cluster.folder / "elsewhere.launcher" / "4711" / "attempt-0").is_dir()


# ------------------------------------------------------------------------------------- stopping and requeue


def test_job_told_to_stop_before_its_limit_saves_and_requeues(cluster: Cluster) -> None:
    output, code = cluster.signal_when_ready(signal.SIGUSR1)
    assert code == 138, output
    assert "driver saved while Ray was up" in cluster.calls
    assert cluster.lines("scontrol requeue") == ["scontrol requeue 4711"]
    # The last thing: by then Ray has ended and the folders are gone.
    assert cluster.calls.rindex("rm -rf") < cluster.calls.rindex("scontrol requeue")
    assert "attempt 1 goes on from round 5" in str(output)


def test_terminated_job_saves_and_ends(cluster: Cluster) -> None:
    output, code = cluster.signal_when_ready(signal.SIGTERM)
    assert code == 143, output
    assert "driver saved while Ray was up" in cluster.calls
    assert not cluster.lines("scontrol requeue")


@pytest.mark.parametrize(
    ("driver", "before", "after", "attempt", "requeued"),
    [
        ("75", 3, "5", "0", True),  # stopped by itself before the deadline
        ("138", 0, "1", "4", True),
        ("75", 5, "5", "1", False),  # no new round: it would go on for ever
        ("75", 3, "5", "20", False),  # often enough
        ("143", 3, "5", "0", False),
        ("1", 3, "5", "0", False),
        ("2", 3, "5", "0", False),
    ],
)
def test_requeues_only_what_was_stopped_in_time_and_got_on(
    cluster: Cluster, driver: str, before: int, after: str, attempt: str, requeued: bool
) -> None:
    cluster.save_round(before)
    code, output = cluster.run(DRIVER=driver, ROUND=after, SLURM_RESTART_COUNT=attempt)
    assert code == int(driver), output
    assert bool(cluster.lines("scontrol requeue")) is requeued, output
    assert (Path(f"{cluster.run_dir}.launcher") / "4711" / f"attempt-{attempt}").is_dir()


def test_refused_requeue_is_told(cluster: Cluster) -> None:
    code, output = cluster.run(DRIVER="75", ROUND="2", REQUEUE="1")
    assert code == 75
    assert f"submit it again with MEDSERL_RUN_DIR={cluster.run_dir} to go on" in output


def test_second_job_on_a_run_directory_is_refused(cluster: Cluster) -> None:
    record = Path(f"{cluster.run_dir}.launcher") / "job"
    record.parent.mkdir(parents=True)
    record.write_text("4000\n")
    code, output = cluster.run(OTHER_JOB="RUNNING")
    assert code == 2
    assert f"job 4000 uses the run directory {cluster.run_dir}" in output
    assert not cluster.lines("srun")
    assert cluster.run(OTHER_JOB="")[0] == 0  # it has ended
    assert record.read_text() == "4711\n"


# -------------------------------------------------------------------------------------------------- site file


def test_site_file_gives_settings_and_the_environment_beats_it(cluster: Cluster) -> None:
    site = cluster.folder / ".config" / "medserl" / "site.sh"
    site.parent.mkdir(parents=True)
    site.write_text("MEDSERL_INTERFACE=hsn0\nMEDSERL_GPUS_PER_NODE=2\nMEDSERL_PREFLIGHT=none\n")
    code, output = cluster.run(MEDSERL_GPUS_PER_NODE="3")
    assert code == 0, output
    assert "env@node1 GLOO_SOCKET_IFNAME=hsn0" in cluster.calls
    assert "trainer.n_gpus_per_node=3" in cluster.calls
    assert not cluster.lines("medserl slurm step check-node")


# ------------------------------------------------------------------------------------------------- containers

RUNTIME = """
echo "RUNTIME $*" >> "$CALLS"
[[ $1 != rm ]] || exit 0
while [[ $1 != the-image ]]; do shift; done
shift
PATH=$STATE/.venv/bin:$PATH
exec "$@"
"""


def in_container(cluster: Cluster, runtime: str) -> list[str]:
    """The words that start the driver in a container, and those of the node-local folder's mount."""
    program = cluster.folder / "bin" / runtime
    program.write_text(f"#!/usr/bin/env bash\nset -u\n{RUNTIME}\n")
    program.chmod(0o755)
    (cluster.folder / "the-image").touch()
    code, output = cluster.run(
        MEDSERL_RUNTIME=runtime,
        MEDSERL_IMAGE="the-image",
        MEDSERL_BINDS="/data /fast/models:/models",
        MEDSERL_RUNTIME_OPTIONS="--an-option",
    )
    assert code == 0, output
    (driver,) = [line for line in cluster.lines("RUNTIME") if "the-image medserl train" in line]
    environment = cluster.lines("env ")
    assert "env TMPDIR=/tmp" in environment  # the private folder, mounted there
    assert "a-secret-of-the-user" not in cluster.calls
    return driver.split()


def test_apptainer(cluster: Cluster) -> None:
    words = in_container(cluster, "apptainer")
    folder, tmp = str(cluster.folder), cluster.node_folder
    assert words[1:7] == ["--quiet", "exec", "--pwd", folder, "--nv", "--bind"]
    binds = [words[index + 1] for index, word in enumerate(words) if word == "--bind"]
    assert binds == [
        f"{tmp}:/tmp",
        f"{folder}:{folder}",
        f"{folder}/outputs:{folder}/outputs",
        "/data:/data",
        "/fast/models:/models",
    ]
    assert words[words.index("the-image") - 1] == "--an-option"
    # What the image sets itself, and would put into the home directory.
    caches = {"XDG_CACHE_HOME=/tmp", "TRITON_CACHE_DIR=/tmp/triton", "TORCHINDUCTOR_CACHE_DIR=/tmp/inductor"}
    assert caches < {words[index + 1] for index, word in enumerate(words) if word == "--env"}


@pytest.mark.parametrize(
    ("runtime", "gpus"), [("docker", ["--gpus", "all"]), ("podman", ["--device", "nvidia.com/gpu=all"])]
)
def test_docker_and_podman(cluster: Cluster, runtime: str, gpus: list[str]) -> None:
    words = in_container(cluster, runtime)
    assert " ".join(gpus) in " ".join(words)
    assert {"--rm", "--init", "--network=host", "--ipc=host"} <= set(words)
    passed = {words[index + 1] for index, word in enumerate(words) if word == "--env"}
    assert {"RAY_ADDRESS", "RAY_AUTH_TOKEN", "GLOO_SOCKET_IFNAME", "WANDB_API_KEY", "HOME=/tmp"} <= passed
    assert not [name for name in passed if "=" in name and name != "HOME=/tmp"]  # no value in a process list
    started = {words[words.index("--name") + 1] for words in (line.split() for line in cluster.lines("RUNTIME run"))}
    (removed,) = {line for line in cluster.lines("RUNTIME rm --force")}
    assert {"medserl-4711-0-driver", "medserl-4711-0-ray-node1", "medserl-4711-0-ray-node2"} <= set(removed.split())
    assert {name for name in started if "ray" in name or "driver" in name} <= set(removed.split())


def test_pyxis_is_options_of_srun(cluster: Cluster) -> None:
    code, output = cluster.run(MEDSERL_RUNTIME="pyxis", MEDSERL_IMAGE="registry#medserl:gpu", PATH=os.environ["PATH"])
    assert code != 0, output  # no stand-ins there
    cluster.environment["PATH"] = f"{cluster.folder}/.venv/bin:{cluster.environment['PATH']}"
    code, output = cluster.run(MEDSERL_RUNTIME="pyxis", MEDSERL_IMAGE="registry#medserl:gpu")
    assert code == 0, output
    (driver,) = [line for line in cluster.lines("srun") if "medserl train" in line]
    folder, tmp = cluster.folder, cluster.node_folder
    assert (
        f"--container-image=registry#medserl:gpu --container-workdir={folder} --no-container-mount-home "
        f"--container-mounts={tmp}:/tmp,{folder}:{folder}" in driver
    )


# ---------------------------------------------------------------------------------------------- other launchers


def one_node(cluster: Cluster, script: str) -> None:
    cluster.script = cluster.script.with_name(script)
    cluster.environment["NODES"] = "node1"


def test_single_node_leaves_ray_to_medserl(cluster: Cluster) -> None:
    one_node(cluster, "train_singlenode.sh")
    cluster.save_round(1)
    code, output = cluster.run("--max-rounds", "3", DRIVER="75", ROUND="2")
    assert code == 75, output
    assert not cluster.lines("ray@")
    assert cluster.lines("medserl train") == [
        f"medserl train --config qwen3_4b_1node --run-dir {cluster.run_dir} trainer.nnodes=1 "
        "trainer.n_gpus_per_node=4 --max-rounds 3"
    ]
    assert cluster.lines("scontrol requeue")


def test_single_node_leaves_room_for_the_folder_of_its_ray(cluster: Cluster) -> None:
    one_node(cluster, "train_singlenode.sh")
    code, output = cluster.run(MEDSERL_TMP="/tmp/" + "x" * 25)
    assert code == 2
    assert "26 characters at most" in output


def test_evaluation(cluster: Cluster) -> None:
    one_node(cluster, "evaluate.sh")
    code, output = cluster.run("--model", "/models/x", "--data", "notes.csv", DRIVER="2")
    assert code == 2, output
    assert cluster.lines("medserl evaluate") == [
        f"medserl evaluate --out {cluster.run_dir} --model /models/x --data notes.csv"
    ]
    assert cluster.lines("medserl slurm step check-node")


@pytest.mark.parametrize("script", ["train_singlenode.sh", "evaluate.sh"])
def test_one_node_launchers_refuse_two(cluster: Cluster, script: str) -> None:
    cluster.script = cluster.script.with_name(script)
    code, output = cluster.run()
    assert code == 2
    assert "got 2 nodes" in output


def test_preflight_starts_nothing(cluster: Cluster) -> None:
    cluster.script = cluster.script.with_name("preflight.sh")
    code, output = cluster.run(BAD="node1")
    assert code == 1, output
    assert "bad node node1" in output
    assert not cluster.lines("ray@")
    assert not cluster.lines("medserl train")


def test_doctor_in_an_allocation_looks_at_all_nodes(cluster: Cluster, root: Path) -> None:
    """As a shell of salloc sees it; in folders of its own, beside a training that may run in the same job."""
    del cluster.environment["MEDSERL_TMP"]
    folder = cluster.folder
    variables = {
        **cluster.environment,
        "PYTHONPATH": str(root),
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_JOB_CPUS_PER_NODE": "24(x2)",
        "MEDSERL_VENV": str(folder / ".venv"),
        "BAD": "node2",
    }
    words = ["doctor", "--config", "embedded", "--run-dir", str(folder / "a run"), "--max-rounds", "3"]
    done = subprocess.run(
        [sys.executable, "-m", "medserl", *words, "trainer.save_freq=2"],
        env=variables,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1, done.stderr
    assert "bad node node2: 7 GPUs instead of 8" in done.stdout
    (plan,) = cluster.lines("medserl slurm step plan")
    assert f"train --config qwen3_4b_multinode --run-dir {folder}/a run trainer.nnodes=2" in plan
    assert plan.endswith("--config embedded medserl.max_rounds=3 trainer.save_freq=2")
    checks = cluster.lines("medserl slurm step check-node")
    assert len(checks) == 2
    assert all("--tmp /tmp/medserl-doctor-4711 --level full --gpus 4" in check for check in checks)
    assert not Path("/tmp/medserl-doctor-4711").exists()
    assert not cluster.lines("ray@")


def test_attach_enters_with_the_jobs_environment(cluster: Cluster) -> None:
    job = cluster.start(SAVES="yes", MEDSERL_PREFLIGHT="none")
    try:
        while "driver is ready" not in cluster.calls:
            assert job.poll() is None
        attached = Cluster(cluster.folder, cluster.script.with_name("attach.sh"), dict(cluster.environment))
        code, output = attached.run("4711", "node2", "bash", "-c", "echo $RAY_ADDRESS in $PWD", OTHER_JOB="node[1-2]")
        assert code == 0, output
        assert f"10.1.1.1:31110 in {cluster.folder}" in output
        assert "srun --jobid=4711 --overlap --nodes=1 --ntasks=1 --nodelist=node2 bash" in cluster.calls
        code, output = attached.run("4712", OTHER_JOB="")
        assert code == 2
        assert "job 4712 is not running" in output
    finally:
        job.send_signal(signal.SIGTERM)
        job.communicate(timeout=30)


def test_ray_says_what_the_launcher_waits_for() -> None:
    """`ray start` tells only people that it is done; ray 2.60, ray/scripts/scripts.py."""
    scripts = importlib.util.find_spec("ray.scripts.scripts")
    assert scripts is not None and scripts.origin is not None
    assert Path(scripts.origin).read_text().count('startup_msg = "Ray runtime started."') == 2  # head and others
