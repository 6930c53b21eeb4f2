"""A small run for test_leftovers.py: this project's cluster, guard and watch, and a main process that waits for ever.

Arguments: run folder, and how the main process waits: `ray` (for an actor that never answers) or `deaf` (where no
exception can reach it).
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path


class Victim:
    """An actor with a child process, as vLLM's server has."""

    def __init__(self) -> None:
        self.child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])

    def facts(self) -> tuple[int, int]:
        return os.getpid(), self.child.pid

    def wait(self) -> None:
        time.sleep(600)


def main(folder: Path, way: str) -> None:
    import ray

    from medserl.config.load import load_config
    from medserl.run.launch import RUN_TOKEN, Cluster
    from medserl.run.run_log import set_up_logging
    from medserl.run.watch import Watch

    set_up_logging(folder)
    token = f"test{os.getpid()}"
    os.environ[RUN_TOKEN] = token
    config = load_config("embedded", ["ray_kwargs.ray_init.object_store_memory=80000000"])
    cluster = Cluster(config, {RUN_TOKEN: token}, folder / "logs")
    looking = Watch(cluster.own_processes(), cluster.abandon)
    kind = ray.remote(Victim)
    first, second = (kind.options(name=name, num_cpus=1).remote() for name in ("abWorkerDict_0:0", "abWorkerDict_0:1"))
    actor, child = ray.get(first.facts.remote())
    ray.get(second.facts.remote())
    looking.ready()
    time.sleep(3)  # until both have been asked for once
    pids = {name: info[0].process.pid for name, info in ray._private.worker._global_node.all_processes.items()}
    facts = {
        **pids, "actor": actor, "child": child, "main": os.getpid(), "token": token,
        "nodes": len(ray.nodes()), "ray_folder": str(cluster._temporary),
    }  # fmt: skip
    (folder / "facts.part").write_text(json.dumps(facts))
    (folder / "facts.part").rename(folder / "facts.json")
    try:
        if way == "ray":
            ray.get(second.wait.remote())
        while True:
            time.sleep(600)
    finally:
        looking.closing()
        cluster.close()
        looking.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
