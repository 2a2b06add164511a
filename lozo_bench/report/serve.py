"""Shows a report on this machine while its runs go on: ``lozo-report outputs/ --watch``."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from lozo_bench.errors import UserError
from lozo_bench.report.collect import Collector
from lozo_bench.report.render import as_html, as_json

LOOPBACK = "127.0.0.1"
_HOSTS = (LOOPBACK, "localhost")
_EVERY_S = 2.0  # between two readings of the folders, however many pages ask


class Latest:
    """The newest report; it is read again when a page asks and it has become old."""

    def __init__(self, collector: Collector, every_s: float = _EVERY_S) -> None:
        self._collector, self._every_s = collector, every_s
        self._lock = threading.Lock()
        self._report = collector.collect()
        self._read_at = time.monotonic()

    def report(self) -> dict[str, Any]:
        """Return the report. If the runs can no longer be read, it is the last one."""
        with self._lock:
            if time.monotonic() - self._read_at >= self._every_s:
                with suppress(UserError, OSError):  # if the folder was moved away
                    self._report = self._collector.collect()
                self._read_at = time.monotonic()
            return self._report


def serve(collector: Collector, port: int) -> ThreadingHTTPServer:
    """Return a server of the report, which answers this machine alone; a thread runs it.

    Args:
        collector: reads the runs.
        port: where it listens; 0 for any free port.

    Raises:
        UserError: there are no runs, or the port is taken.
    """
    latest = Latest(collector)

    class Handler(_Handler):
        source = latest

    try:
        server = ThreadingHTTPServer((LOOPBACK, port), Handler)
    except (OSError, OverflowError) as error:
        raise UserError(
            f"--port: given {port}; it cannot be used ({error}); give another one, or 0 for any"
        ) from error
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True).start()
    return server


class _Handler(BaseHTTPRequestHandler):
    source: Latest
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer with the page, or with its data if they are newer than the page has."""
        if not self._is_ours():
            self._send(HTTPStatus.FORBIDDEN, "text/plain", "ask for 127.0.0.1\n")
        elif self.path == "/":
            self._send(HTTPStatus.OK, "text/html", as_html(self.source.report(), watched=True))
        elif self.path == "/data.json":
            report = self.source.report()
            tag = f'"{report["version"]}"'
            if self.headers.get("If-None-Match") == tag:
                self._send(HTTPStatus.NOT_MODIFIED, "application/json", "", tag)
            else:
                self._send(HTTPStatus.OK, "application/json", as_json(report), tag)
        else:
            self._send(HTTPStatus.NOT_FOUND, "text/plain", "there is / and /data.json\n")

    def _is_ours(self) -> bool:
        """Return whether the request was meant for this server: a page elsewhere cannot ask."""
        return urlsplit(f"//{self.headers.get('Host', '')}").hostname in _HOSTS

    def _send(self, status: HTTPStatus, kind: str, text: str, tag: str = "") -> None:
        body = text.encode("utf-8", "backslashreplace")
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        if tag:
            self.send_header("ETag", tag)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: the terminal is for the user."""
