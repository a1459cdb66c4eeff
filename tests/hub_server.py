"""A hub on loopback that serves small repositories made by tests, and misbehaves where it is told to."""

import hashlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit


@dataclass
class Repository:
    """The revisions of a model: commit -> file -> content; branches name commits."""

    commits: dict[str, dict[str, bytes]]
    branches: dict[str, str]
    status: int = 200
    """What every request is answered with: 401 and 404 of what may not be seen, 403 of what asks for consent."""


@dataclass
class Behaviour:
    """What goes wrong, and how often."""

    busy: int = 0
    """Requests that are answered 429 before one is served."""
    cut_after: int | None = None
    """Bytes of a file's content after which the connection is closed, once."""
    wrong: bool = False
    """Whether other bytes are sent than were published."""
    delay: float = 0.0
    """Seconds before each piece of content."""


@dataclass
class Hub:
    """The server, and what it was asked."""

    repositories: dict[str, Repository]
    behaviour: Behaviour = field(default_factory=Behaviour)
    asked: list[str] = field(default_factory=list)
    ranges: list[str] = field(default_factory=list)
    url: str = ""

    def fetched(self) -> list[str]:
        """The files whose content was asked for."""
        return [line.partition(" ")[2] for line in self.asked if line.startswith("GET ") and "/resolve/" in line]


def commit(number: int) -> str:
    """A commit's name."""
    return f"{number:040x}"


@contextmanager
def serving(repositories: dict[str, Repository], files: dict[str, bytes] | None = None) -> Iterator[Hub]:
    """Serve repositories by the hub's interface, and plain files by their paths."""
    hub = Hub(repositories)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            return

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def _answer(self, *, body: bool) -> None:
            path = unquote(urlsplit(self.path).path)
            hub.asked.append(f"{self.command} {path}")
            if hub.behaviour.busy:
                hub.behaviour.busy -= 1
                return self._send(429, b"", {"Retry-After": "0"})
            if files is not None and path in files:
                return self._content(files[path], {}, body=body)
            name, _, rest = path.removeprefix("/api/models/").strip("/").partition("/")
            owner, (model, _, rest) = name, rest.partition("/")
            repository = repositories.get(f"{owner}/{model}")
            if repository is None or repository.status != 200:
                return self._refused(401 if repository is None else repository.status)
            _, _, rest = rest.partition("/")
            revision, _, file = rest.partition("/")
            sha = repository.branches.get(revision, revision)
            if sha not in repository.commits:
                return self._send(404, b"", {"X-Error-Code": "RevisionNotFound", "X-Error-Message": "no revision"})
            contents = repository.commits[sha]
            if path.startswith("/api/models/"):
                return self._send(200, json.dumps(_info(f"{owner}/{model}", sha, contents)).encode(), {})
            if file not in contents:
                return self._send(404, b"", {"X-Error-Code": "EntryNotFound", "X-Error-Message": "no file"})
            digest = hashlib.sha256(contents[file]).hexdigest()
            headers = {"X-Repo-Commit": sha, "ETag": f'"{digest}"'}
            headers |= {"X-Linked-Etag": f'"{digest}"', "X-Linked-Size": str(len(contents[file]))}
            return self._content(contents[file], headers, body=body)

        def _content(self, content: bytes, headers: dict[str, str], *, body: bool) -> None:
            if hub.behaviour.wrong:
                content = bytes(len(content))
            start, status = 0, 200
            if (asked := self.headers.get("Range")) and asked != "bytes=0-0":
                hub.ranges.append(asked)
                start, status = int(asked.removeprefix("bytes=").partition("-")[0]), 206
                headers = headers | {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}
            part = content[start:]
            self.send_response(status)
            for key, value in {**headers, "Accept-Ranges": "bytes", "Content-Length": str(len(part))}.items():
                self.send_header(key, value)
            self.end_headers()
            if not body:
                return
            limit, hub.behaviour.cut_after = hub.behaviour.cut_after, None
            if limit is not None and limit < len(part):
                self.wfile.write(part[:limit])
                self.wfile.flush()
                self.close_connection = True
                self.connection.close()
                return
            for place in range(0, len(part), 65_536):
                time.sleep(hub.behaviour.delay)
                self.wfile.write(part[place : place + 65_536])

        def _refused(self, status: int) -> None:
            code = {401: "RepoNotFound", 403: "GatedRepo", 404: "RepoNotFound"}.get(status, "Other")
            self._send(status, b"", {"X-Error-Code": code, "X-Error-Message": "refused"})

        def _send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            kind = {"Content-Type": "application/json", "Content-Length": str(len(content))}
            for key, value in {**kind, **headers}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


def _info(name: str, sha: str, contents: dict[str, bytes]) -> dict[str, Any]:
    siblings = []
    for file, content in contents.items():
        large = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}
        kept = {"lfs": large} if file.endswith((".safetensors", ".bin", ".pth")) else {}
        siblings.append({"rfilename": file, "size": len(content), "blobId": "0" * 40, **kept})
    return {"_id": "0", "id": name, "modelId": name, "sha": sha, "private": False, "tags": [], "siblings": siblings}
