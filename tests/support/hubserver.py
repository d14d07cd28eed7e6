"""A hub on the loopback that speaks the file protocol of the real one, and can be told to fail in many ways.

What it answers follows what `huggingface_hub` asks: the listing of a repository with the hashes of its files, and
each file under its revision; large ones by a redirect to another host, which must not see a token.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "c" * 40
LARGE = 10_000  # bytes, from which on a file is kept in LFS
PATIENCE = 10  # seconds that a silent answer lasts at most


@dataclass
class Repository:
    """The files of each commit, which commit each branch and tag stands for, and who may read them."""

    commits: dict[str, Mapping[str, bytes]]
    branches: dict[str, str] = field(default_factory=lambda: {"main": COMMIT})
    token: str | None = None
    gated: bool = False

    def commit(self, revision: str) -> str | None:
        commit = self.branches.get(revision, revision)
        return commit if commit in self.commits else None


class Hub(ThreadingHTTPServer):
    """Repositories by name; `faults` says what goes wrong with a path's last part, "" being the listing.

    A fault is a status, or "cut" (half of what is asked for, each time), "cut once", "corrupt", "short", "silent"
    or, for the listing, the bytes to answer.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.forget()

    def forget(self) -> None:
        """Be as new, but at the same address."""
        self.repositories: dict[str, Repository] = {}
        self.faults: dict[str, Any] = {}
        self.requests: list[tuple[str, str]] = []
        self.tokens_seen_by_the_store: list[str] = []
        self.gone = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def fetched(self) -> set[str]:
        """The files whose content was asked for, by their paths in the repository."""
        return {path for method, path in self.requests if method == "GET" and path}

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Answer for so long, without what another test left behind."""
        self.forget()
        thread = threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield
        self.gone.set()
        self.shutdown()
        thread.join()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that hang up."""


class _Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        parts = [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]
        if parts[0] == "store":
            self._send_stored(*parts[1:3], "/".join(parts[3:]))
        elif parts[:2] == ["api", "models"]:
            self._list("/".join(parts[2:4]), parts[5] if len(parts) > 4 else "main")
        else:
            self._send_file("/".join(parts[:2]), parts[3], "/".join(parts[4:]))

    # --- What may be read ---------------------------------------------------------------------------

    def _list(self, name: str, revision: str) -> None:
        self.server.requests.append((self.command, ""))
        found = self._find(name, revision, listing=True)
        fault = self.server.faults.get("")
        if found is None or self._fails(fault):
            return
        repository, commit = found
        entries = [_entry(path, content) for path, content in repository.commits[commit].items()]
        info = {"id": name, "sha": commit, "siblings": entries, "tags": [], "likes": 0, "downloads": 0}
        body = json.dumps(info | {"private": bool(repository.token), "gated": repository.gated}).encode()
        self._send(fault if isinstance(fault, bytes) else body, {"Content-Type": "application/json"})

    def _find(self, name: str, revision: str, listing: bool = False) -> tuple[Repository, str] | None:
        repository = self.server.repositories.get(name)
        allowed = repository and self.headers.get("Authorization") == f"Bearer {repository.token}"
        if repository is None or (repository.token and not repository.gated and not allowed):
            self._refuse(404 if self.headers.get("Authorization") else 401, "RepoNotFound")
        elif repository.gated and not listing and not allowed:
            self._refuse(403, "GatedRepo")
        elif (commit := repository.commit(revision)) is None:
            self._refuse(404, "RevisionNotFound")
        else:
            return repository, commit
        return None

    def _refuse(self, status: int, code: str, headers: Mapping[str, str] | None = None) -> None:
        self._send(b"", {"X-Error-Code": code, **(headers or {})}, status)

    def _fails(self, fault: Any) -> bool:
        if fault == "silent":
            self.server.gone.wait(PATIENCE)
            self.close_connection = True
        elif isinstance(fault, int):
            self._send(b"", {}, fault)
        return fault == "silent" or isinstance(fault, int)

    # --- Files --------------------------------------------------------------------------------------

    def _send_file(self, name: str, revision: str, path: str) -> None:
        self.server.requests.append((self.command, path))
        found = self._find(name, revision)
        if found is None or self._fails(self.server.faults.get(path)):
            return
        repository, commit = found
        headers = {"X-Repo-Commit": commit}
        if path not in (files := repository.commits[commit]):
            self._refuse(404, "EntryNotFound", headers)
            return
        entry = _entry(path, files[path])
        if "lfs" in entry:
            digest = entry["lfs"]["sha256"]
            port = self.server.server_address[1]
            linked = {"X-Linked-Size": str(entry["size"]), "X-Linked-Etag": f'"{digest}"'}
            store = f"http://localhost:{port}/store/{name}/{path}?commit={commit}"
            self._send(b"", {**headers, **linked, "Location": store}, 302)
        else:
            self._send_content(path, files[path], {**headers, "ETag": f'"{entry["blobId"]}"'})

    def _send_stored(self, organisation: str, name: str, path: str) -> None:
        self.server.requests.append((self.command, path))
        self.server.tokens_seen_by_the_store += [self.headers["Authorization"] or ""]
        commit = urlsplit(self.path).query.partition("=")[2]
        content = self.server.repositories[f"{organisation}/{name}"].commits[commit][path]
        self._send_content(path, content, {})

    def _send_content(self, path: str, content: bytes, headers: Mapping[str, str]) -> None:
        fault = self.server.faults.get(path) if self.command == "GET" else None
        if fault == "corrupt":
            content = content[:-1] + bytes([content[-1] ^ 1])
        if fault == "short":
            content = content[: len(content) // 2]
        headers = {**headers, "Content-Disposition": f'inline; filename="{path}";'}
        start, status = 0, 200
        if (wanted := self.headers.get("Range")) and wanted.startswith("bytes="):
            start, status = int(wanted[6:].partition("-")[0]), 206
            headers = {**headers, "Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}
        if fault in {"cut", "cut once"} and not (fault == "cut once" and start):
            self._send(content[start:], headers, status, at_most=max(0, len(content) // 2 - start))
        else:
            self._send(content[start:], headers, status)

    def _send(
        self, body: bytes, headers: Mapping[str, str], status: int = 200, at_most: int | None = None
    ) -> None:
        self.send_response(status)
        # A connection that is kept would reach the next test, with the thread that serves it.
        for key, value in {"Content-Length": str(len(body)), "Connection": "close", **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body[:at_most])


def _entry(path: str, content: bytes) -> dict[str, Any]:
    """Describe a file as the listing does."""
    blob = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
    entry: dict[str, Any] = {"rfilename": path, "size": len(content), "blobId": blob}
    if len(content) >= LARGE:
        digest = hashlib.sha256(content).hexdigest()
        entry["lfs"] = {"size": len(content), "sha256": digest, "pointerSize": 134}
    return entry


HUB = Hub()  # one, as huggingface_hub keeps the address that it found when it was imported
