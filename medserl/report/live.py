"""``medserl watch``: games and reports of runs under way, for a browser on this machine and nobody else."""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from medserl.errors import ConfigError
from medserl.gamelog.parts import parts
from medserl.report.games_data import Packer
from medserl.report.games_page import live_page
from medserl.report.run_report import make_report, page
from medserl.run.run_dir import CONFIG_FILE
from medserl.run.run_log import METRICS_FILE

LOOPBACK = "127.0.0.1"
REFRESH = 15
"""Seconds after which a browser asks for a report again; the games ask by themselves."""
_HTML, _TEXT, _JSON = (f"{kind}; charset=utf-8" for kind in ("text/html", "text/plain", "application/json"))
Answer = tuple[HTTPStatus, str, bytes]


class Site:
    """What is served, by the path behind the token; made anew when a run has written something.

    Args:
        run_dirs: The runs, which may have played no round yet.
    """

    def __init__(self, run_dirs: Sequence[Path]) -> None:
        for run_dir in run_dirs:
            if not run_dir.is_dir():
                raise ConfigError(f"{run_dir}: no such folder; give the directory of a run of `medserl train`")
            if not (run_dir / CONFIG_FILE).is_file() and not any(parts(run_dir)):
                raise ConfigError(f"{run_dir}: holds no run ({CONFIG_FILE}); give the directory of a run itself")
        self.run_dirs = list(run_dirs)
        self._packer = Packer(run_dirs)
        self._data: tuple[str, bytes] = ("", b"")
        self._lock = threading.Lock()

    @property
    def version(self) -> str:
        """Another text whenever a part of a log came or went."""
        there = []
        for part in (part for run_dir in self.run_dirs for part in parts(run_dir)):
            with suppress(FileNotFoundError):  # the log is kept short
                there.append((str(part), part.stat().st_mtime_ns))
        return hashlib.sha256(json.dumps(there).encode()).hexdigest()[:16]

    def answer(self, path: str) -> Answer:
        """Status, type and content for a path."""
        if path == "":
            links = [(name, f"report/{i}") for i, name in enumerate(self._packer.runs)]
            return HTTPStatus.OK, _HTML, live_page(self._packer.runs, links).encode()
        if path == "version":
            return HTTPStatus.OK, _TEXT, self.version.encode()
        if path == "data":
            return HTTPStatus.OK, _JSON, self._packed()
        kind, _, number = path.partition("/")
        if kind == "report" and number.isdecimal() and int(number) < len(self.run_dirs):
            return self._report(self.run_dirs[int(number)])
        return HTTPStatus.NOT_FOUND, _TEXT, b"not here"

    def _packed(self) -> bytes:
        with self._lock:
            version = self.version
            if version != self._data[0]:
                self._data = version, json.dumps(self._packer.pack()).encode()
            return self._data[1]

    def _report(self, run_dir: Path) -> Answer:
        if not (run_dir / METRICS_FILE).is_file():
            return HTTPStatus.OK, _TEXT, b"no round is over yet; this page looks again by itself"
        try:
            with self._lock:
                return HTTPStatus.OK, _HTML, page(make_report(run_dir)).encode()
        except ConfigError as error:
            return HTTPStatus.OK, _TEXT, str(error).encode()


class Server(ThreadingHTTPServer):
    """Listens on loopback only, and answers only those who know its token.

    Args:
        site: What is served.
        port: 0 for any that is free.

    Raises:
        ConfigError: the port is taken or not allowed.
    """

    daemon_threads = True

    def __init__(self, site: Site, port: int = 0) -> None:
        self.site, self.token = site, secrets.token_urlsafe(24)
        try:
            super().__init__((LOOPBACK, port), _Handler)
        except OSError as error:
            raise ConfigError(f"--port {port}: cannot be used ({error.strerror}); give another, or none") from None

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that went away in the midst of an answer is no error; others are shown as usual."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    @property
    def url(self) -> str:
        """Where a browser finds the games; whoever knows it can read them."""
        return f"http://{LOOPBACK}:{self.server_port}/{self.token}/"


class _Handler(BaseHTTPRequestHandler):
    server: Server
    server_version, sys_version = "medserl", ""

    def do_GET(self) -> None:
        # Another site's page could have its name point here; it cannot have the browser say another host.
        host = self.headers.get("Host", "").partition(":")[0]
        token, _, path = self.path.partition("?")[0].removeprefix("/").partition("/")
        if host not in (LOOPBACK, "localhost") or not hmac.compare_digest(token.encode(), self.server.token.encode()):
            return self._send(HTTPStatus.NOT_FOUND, _TEXT, b"not here")
        return self._send(*self.server.site.answer(path), refresh=path.startswith("report/"))

    def _send(self, status: HTTPStatus, kind: str, content: bytes, refresh: bool = False) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("X-Content-Type-Options", "nosniff")
        if refresh:
            self.send_header("Refresh", str(REFRESH))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Nothing: an address holds the token."""
