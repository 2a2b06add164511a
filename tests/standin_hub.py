"""A stand-in for the Hugging Face hub on this machine, for tests of the code that downloads.

The real clients (huggingface_hub, transformers, datasets) talk to it if HF_ENDPOINT is its address.
It answers as those clients' sources and docstrings say that the hub does: small files after a
redirect on the same host (``/api/resolve-cache``), large ones after a redirect to another host,
errors with the header ``X-Error-Code``. What is wrong with a repository is part of the repository,
so a test chooses a fault by a name.

To look at it by hand::

    python tests/standin_hub.py   # prints the two variables that a client needs
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

# Accounts: one has accepted every licence and reads private repositories, the other has not.
LICENSED = "hf_" + "L" * 34
PLAIN = "hf_" + "P" * 34

LARGE = (".safetensors", ".parquet")  # files in large-file storage, which another host serves
API = re.compile(r"/api/(models|datasets)/([^/]+/[^/]+)(?:/(revision|tree|paths-info)/(.+))?$")
RESOLVE = re.compile(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)$")
CACHED = re.compile(r"/api/resolve-cache/(models|datasets)/([^/]+/[^/]+)/([^/]+)/(.+)$")
STORED = re.compile(r"/stored/(models|datasets)/([^/]+/[^/]+)/([^/]+)/(.+)$")


@dataclass(frozen=True)
class Repository:
    """A repository and what is wrong with it.

    Attributes:
        files: The content of each file of the branch ``main``.
        branches: The files of other branches, by the name of the branch.
        gated: Whether an account must accept a licence first.
        private: Whether only one account knows of it.
        fault: What happens to every request for it: ``limited`` (429), ``broken`` (500),
            ``unavailable`` (503), ``stalled`` (no answer); or to its large files: ``cut`` (the
            connection ends in mid-file), ``short`` (less than announced, but a whole answer),
            ``changed`` (the right size, but other bytes), ``hung`` (silence in mid-file),
            ``cut once`` (the first time only).
    """

    files: Mapping[str, bytes]
    branches: Mapping[str, Mapping[str, bytes]] = field(default_factory=dict)
    gated: bool = False
    private: bool = False
    fault: str | None = None

    def commits(self) -> dict[str, Mapping[str, bytes]]:
        """Return the files under the name of each branch and of its commit."""
        named = {"main": self.files, **self.branches}
        return {**named, **{commit_of(files): files for files in named.values()}}


def commit_of(files: Mapping[str, bytes]) -> str:
    """Return the commit with these files: 40 hexadecimal digits, as in git."""
    content = hashlib.sha1(usedforsecurity=False)
    for name, data in sorted(files.items()):
        content.update(name.encode() + b"\0" + data)
    return content.hexdigest()


def etag_of(name: str, data: bytes) -> str:
    """Return a file's ETag: its SHA-256 if it is in large-file storage, else git's hash."""
    if name.endswith(LARGE):
        return hashlib.sha256(data).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


class StandinHub:
    """The stand-in, serving in threads of this process; a context manager.

    Attributes:
        requests: Every request: method, and the path with the host's part before it (``hub`` or
            ``storage``).
        leaked: Whether a token was sent to the storage host, which must never get one.
    """

    def __init__(self, repositories: Mapping[tuple[str, str], Repository]) -> None:
        """Take the repositories by kind (``models`` or ``datasets``) and name."""
        self.repositories = repositories
        self.requests: list[tuple[str, str]] = []
        self.leaked = False
        self._stopped = threading.Event()
        self._cut: set[str] = set()
        self._hosts = [_host(self, "hub"), _host(self, "storage")]
        self.address, self.storage = (f"http://127.0.0.1:{x.server_port}" for x in self._hosts)

    def __enter__(self) -> StandinHub:
        for host in self._hosts:
            threading.Thread(target=host.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()  # answers that hang end
        for host in self._hosts:
            host.shutdown()
            host.server_close()

    def wait(self) -> None:
        """Say nothing until the stand-in is closed."""
        self._stopped.wait()

    def first(self, what: str) -> bool:
        """Return whether this is the first time that the stand-in is asked about ``what``."""
        seen = what in self._cut
        self._cut.add(what)
        return not seen


def _host(hub: StandinHub, name: str) -> ThreadingHTTPServer:
    handler = type(f"{name}_handler", (_Handler,), {"hub": hub, "name": name})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads, server.block_on_close = True, False
    return server


class _Refused(Exception):  # noqa: N818  # an answer, not an error
    def __init__(self, status: int, code: str, message: str, **headers: str) -> None:
        super().__init__(message)
        self.status, self.code, self.headers = status, code, headers


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: StandinHub
    name: str

    def do_HEAD(self) -> None:  # named by http.server
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def log_message(self, *_: object) -> None:
        """Print nothing."""

    def _answer(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        self.body = self.rfile.read(length)
        url = urlsplit(self.path)
        self.query = parse_qs(url.query)
        self.hub.requests.append((self.command, f"{self.name}{unquote(url.path)}"))
        if self.name == "storage":
            self.hub.leaked |= "Authorization" in self.headers
        try:
            self._route(url.path)
        except _Refused as refused:
            headers = {"X-Error-Code": refused.code, "X-Error-Message": str(refused)}
            headers = {key: value for key, value in headers.items() if value} | refused.headers
            self._send(refused.status, json.dumps({"error": str(refused)}).encode(), headers)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True  # the client gave up

    def _route(self, path: str) -> None:
        if self.name == "storage" and (match := STORED.match(path)):
            kind, repo, revision, name = (unquote(part) for part in match.groups())
            self._stored(kind, repo, revision, name)
        elif match := API.match(path):
            kind, repo, what, rest = match.groups()
            self._api(kind, repo, what, rest or "main")
        elif match := RESOLVE.match(path):
            prefix, repo, revision, name = match.groups()
            self._resolve(
                "datasets" if prefix else "models", repo, unquote(revision), unquote(name)
            )
        elif match := CACHED.match(path):
            kind, repo, revision, name = (unquote(part) for part in match.groups())
            files, commit = self._files(kind, repo, revision)
            self._file(files, commit, name)
        else:
            raise _Refused(404, "", "Sorry, we can't find the page you are looking for.")

    def _api(self, kind: str, repo: str, what: str | None, rest: str) -> None:
        revision, _, folder = rest.partition("/")
        files, commit = self._files(kind, repo, unquote(revision), metadata=what != "tree")
        if what == "tree":
            self._json(_entries(files, unquote(folder), "true" in self.query.get("recursive", [])))
        elif what == "paths-info":
            wanted = parse_qs(self.body.decode()).get("paths") or json.loads(self.body)["paths"]
            everything = _entries(files, "", True)
            self._json([entry for entry in everything if entry["path"] in wanted])
        else:
            there = self.hub.repositories[kind, repo]
            siblings = [{"rfilename": name} for name in files]
            self._json(
                {"id": repo, "_id": "0" * 24, "sha": commit, "siblings": siblings, "tags": [],
                 "private": there.private, "gated": "manual" if there.gated else False,
                 "disabled": False, "downloads": 0, "likes": 0}
            )  # fmt: skip

    def _files(
        self, kind: str, repo: str, revision: str, metadata: bool = False
    ) -> tuple[Mapping[str, bytes], str]:
        """Return the files of a revision, and its commit, if the account may read them."""
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if token not in ("", LICENSED, PLAIN):
            raise _Refused(401, "", "Invalid credentials in Authorization header")
        there = self.hub.repositories.get((kind, repo))
        if there is None or (there.private and token != LICENSED):
            if token:
                raise _Refused(404, "RepoNotFound", "Repository not found")
            raise _Refused(401, "RepoNotFound", "Invalid username or password.")
        self._fail(there.fault)
        if there.gated and token != LICENSED and not metadata:
            status, reason = (
                (403, "you are not in the authorized list. Visit the page to ask for access.")
                if token
                else (401, "you must have access to it and be authenticated. Please log in.")
            )
            raise _Refused(status, "GatedRepo", f"Access to {repo} is restricted: {reason}")
        files = there.commits().get(revision)
        if files is None:
            raise _Refused(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return files, commit_of(files)

    def _fail(self, fault: str | None) -> None:
        if fault == "limited":
            limits = {
                "RateLimit": '"resolvers";r=0;t=283',
                "RateLimit-Policy": '"fixed window";"resolvers";q=3000;w=300',
            }
            raise _Refused(429, "", "We had to rate limit your IP.", **limits)
        if fault == "broken":
            raise _Refused(500, "", "Internal Error - We're working hard to fix this!")
        if fault == "unavailable":
            raise _Refused(503, "", "Service Unavailable")
        if fault == "stalled":
            self.hub.wait()
            raise BrokenPipeError

    def _resolve(self, kind: str, repo: str, revision: str, name: str) -> None:
        files, commit = self._files(kind, repo, revision)
        if name not in files:
            raise _Refused(404, "EntryNotFound", "Entry not found", **{"X-Repo-Commit": commit})
        place = f"{kind}/{repo}/{commit}/{quote(name)}"
        if not name.endswith(LARGE):
            self._redirect(307, f"/api/resolve-cache/{place}", {"X-Repo-Commit": commit})
            return
        linked = {
            "X-Repo-Commit": commit,
            "X-Linked-Size": str(len(files[name])),
            "X-Linked-ETag": f'"{etag_of(name, files[name])}"',
        }
        self._redirect(302, f"{self.hub.storage}/stored/{place}", linked)

    def _file(self, files: Mapping[str, bytes], commit: str, name: str) -> None:
        headers = {"X-Repo-Commit": commit, "ETag": f'"{etag_of(name, files[name])}"'}
        self._send(200, files[name], headers)

    def _stored(self, kind: str, repo: str, revision: str, name: str) -> None:
        """Send a large file, or the part that is asked for, with the repository's fault."""
        there = self.hub.repositories[kind, repo]
        data, status, fault = there.commits()[revision][name], 200, there.fault
        whole = len(data)
        headers = {"Accept-Ranges": "bytes"}
        if part := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or ""):
            data, status = data[int(part[1]) :], 206
            headers["Content-Range"] = f"bytes {part[1]}-{whole - 1}/{whole}"
        if fault == "cut once" and not self.hub.first(name):
            fault = None
        if fault == "short":
            data = data[: len(data) // 2]
        if fault == "changed":
            data = data[:-9] + bytes(byte ^ 1 for byte in data[-9:])
        if fault in ("cut", "cut once", "hung"):
            self.send_response(status)
            for key, value in {**headers, "Content-Length": str(len(data))}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data[: len(data) // 2])
                self.wfile.flush()
            if fault == "hung":
                self.hub.wait()
            self.close_connection = True
            return
        self._send(status, data, headers)

    def _redirect(self, status: int, location: str, headers: Mapping[str, str]) -> None:
        self._send(status, b"", {**headers, "Location": location})

    def _json(self, value: Any) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, data: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


def _entries(files: Mapping[str, bytes], folder: str, recursive: bool) -> list[dict[str, Any]]:
    """Return the files and folders in a folder, as the hub lists them."""
    start = f"{folder}/" if folder else ""
    inside = [name for name in files if name.startswith(start)]
    if folder and not inside:
        raise _Refused(404, "EntryNotFound", f"{folder} does not exist")
    parents = {name.rsplit("/", n)[0] for name in inside for n in range(1, name.count("/") + 1)}
    found = [_entry("directory", path, b"") for path in sorted(parents) if path != folder]
    found += [_entry("file", name, files[name]) for name in inside]
    if not recursive:
        found = [entry for entry in found if "/" not in entry["path"].removeprefix(start)]
    return [entry for entry in found if entry["path"].startswith(start)]


def _entry(kind: str, path: str, data: bytes) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": kind, "path": path, "oid": "0" * 40, "size": len(data)}
    if kind == "file" and path.endswith(LARGE):
        oid = etag_of(path, data)
        entry["lfs"] = {"oid": oid, "size": len(data), "pointerSize": 134}
    return entry


if __name__ == "__main__":
    from hub_repositories import repositories

    with StandinHub(repositories()) as standin:
        print(f"export HF_ENDPOINT={standin.address} NO_PROXY=127.0.0.1")
        standin.wait()
