"""``medserl watch``: games and reports of runs under way, in a browser."""

from __future__ import annotations

import argparse
import socket
from pathlib import Path

from medserl.errors import EXIT_OK, ConfigError


def add_watch(commands: argparse._SubParsersAction) -> None:
    """The options of ``medserl watch``."""
    parser = commands.add_parser(
        "watch",
        help="serve the games and reports of runs under way, on this machine only",
        description="Serve the games and the reports of the runs to a browser on this machine, and add each round as "
        "it ends, until Ctrl-C. Only those who know the address, with a new secret at each start, can read them.",
    )
    parser.set_defaults(run=run_watch)
    parser.add_argument(
        "run_dirs", type=Path, nargs="+", metavar="RUN", help="the directory of a run of `medserl train`"
    )
    parser.add_argument("--port", type=int, default=0, help="the port to listen on (default: any free port)")


def run_watch(options: argparse.Namespace, overrides: list[str]) -> int:
    """Serve until interrupted."""
    from medserl.report.live import Server, Site

    if overrides:
        raise ConfigError(f"{overrides[0]}: watch takes run directories and no overrides")
    if not 0 <= options.port <= 65535:
        raise ConfigError(f"--port {options.port}: is not a port; give one from 1 to 65535, or none")
    with Server(Site(options.run_dirs), options.port) as server:
        port = server.server_port
        try:
            print(f"games and reports: {server.url}")
            print(f"from another machine: ssh -L {port}:127.0.0.1:{port} {socket.gethostname()}, then the same address")
            print("Ctrl-C ends this and no run", flush=True)
            server.serve_forever()
        except KeyboardInterrupt:
            print()
    return EXIT_OK
