"""A hub on loopback that serves and takes small repositories, and misbehaves where it is told to."""

import base64
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

LARGE = (".safetensors", ".bin", ".pth")


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
    token: str | None = None
    """What may write; nothing may where there is none."""
    uploads: dict[str, bytes] = field(default_factory=dict)
    """Contents by their SHA-256, as they were sent before a commit names them."""

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

        def do_POST(self) -> None:
            self._write()

        def do_PUT(self) -> None:
            self._write()

        def _write(self) -> None:
            path, content = unquote(urlsplit(self.path).path), self._body()
            hub.asked.append(f"{self.command} {path}")
            if path.startswith("/upload/"):  # an address that was given to who may write
                hub.uploads[path.removeprefix("/upload/")] = content
                return self._send(200, b"", {})
            if hub.token is None or self.headers.get("Authorization") != f"Bearer {hub.token}":
                return self._send(401 if "wrong" in str(self.headers.get("Authorization")) else 403, b"", {})
            if path == "/api/validate-yaml":
                return self._send(200, json.dumps({"errors": [], "warnings": []}).encode(), {})
            if path == "/api/repos/create":
                asked = json.loads(content)
                name = f"{asked['organization']}/{asked['name']}"
                found = name in repositories
                repositories.setdefault(name, Repository({}, {}))
                return self._send(409 if found else 200, json.dumps({"url": f"{hub.url}/{name}"}).encode(), {})
            answer = self._of_commit(path, content)
            return self._send(200, json.dumps(answer).encode(), {})

        def _of_commit(self, path: str, content: bytes) -> dict[str, Any]:
            """Answer one of the three requests that a commit is made of."""
            if path.endswith("/info/lfs/objects/batch"):
                objects = json.loads(content)["objects"]
                there = {item["oid"]: {"upload": {"href": f"{hub.url}/upload/{item['oid']}"}} for item in objects}
                return {"transfer": "basic", "objects": [{**item, "actions": there[item["oid"]]} for item in objects]}
            if "/preupload/" in path:
                names = [item["path"] for item in json.loads(content)["files"]]
                modes = {name: "lfs" if name.endswith(LARGE) else "regular" for name in names}
                return {"files": [{"path": n, "uploadMode": modes[n], "shouldIgnore": False} for n in names]}
            name = "/".join(path.removeprefix("/api/models/").split("/")[:2])
            repository, files = repositories[name], {}
            for line in map(json.loads, content.splitlines()):
                value = line["value"]
                if line["key"] == "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    files[value["path"]] = hub.uploads[value["oid"]]
            before = repository.commits.get(repository.branches.get("main", ""), {})
            sha = commit(0xABC0 + len(repository.commits))
            repository.commits[sha] = {**before, **files}
            repository.branches["main"] = sha
            return {"success": True, "commitOid": sha, "commitUrl": f"{hub.url}/{name}/commit/{sha}", "hookOutput": ""}

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)

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
                if start >= len(content):
                    return self._send(416, b"", {"Content-Range": f"bytes */{len(content)}"})
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
            if self.command != "HEAD":
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
        kept = {"lfs": large} if file.endswith(LARGE) else {}
        siblings.append({"rfilename": file, "size": len(content), "blobId": "0" * 40, **kept})
    return {"_id": "0", "id": name, "modelId": name, "sha": sha, "private": False, "tags": [], "siblings": siblings}
