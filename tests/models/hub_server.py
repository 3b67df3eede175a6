"""A small Hugging Face Hub on loopback, with faults on demand, and the real client run against it in processes of its own.

The client reads its settings when it is imported, and other tests import it, so `Hub.call` starts a fresh interpreter with the
environment that it needs: nothing in the process of the tests is touched.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).parents[2]
TOKEN = "hf_" + "t" * 34

_CLIENT = """
import json, sys
from gmml_models.hub import folder as hub
name, args, options = json.loads(sys.argv[1])
try:
    value, error = getattr(hub, name)(*args, **options), None
except Exception as raised:
    value, error = None, [type(raised).__name__, str(raised), type(raised.__cause__).__name__]
print("\\n" + json.dumps({"value": value if isinstance(value, dict) else value and str(value), "error": error}))
"""


class Answer(NamedTuple):
    value: Any
    error: str | None
    message: str
    cause: str


class Request(NamedTuple):
    method: str
    path: str
    host: str
    token: bool


@dataclass
class Fault:
    """What goes wrong: kind is drop, bytes, longer, shorter, slow, or ``status[:X-Error-Code]``."""

    kind: str
    path: str = "/resolve/|/cdn/"
    method: str = "GET|HEAD"
    times: int = 1 << 30


@dataclass
class Repo:
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)


class Hub:
    """The server's state, what it was asked, and the client's side of it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.repos: dict[str, Repo] = {}
        self.lfs: dict[str, bytes] = {}
        self.faults: list[Fault] = []
        self.requests: list[Request] = []
        self.lock = threading.Lock()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self.server.daemon_threads = True
        self.server.hub = self  # type: ignore[attr-defined]
        self.port = self.server.server_address[1]

    def commit(self, repo: str, branch: str, files: dict[str, bytes]) -> str:
        """Put files on a branch; the new commit."""
        held = self.repos.setdefault(repo, Repo())
        commit = hashlib.sha1(repr((repo, branch, len(held.commits))).encode()).hexdigest()
        held.commits[commit] = {**held.commits.get(held.refs.get(branch, ""), {}), **files}
        held.refs[branch] = commit
        return commit

    def environment(self, **more: str) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
        ours = {
            "HF_ENDPOINT": f"http://127.0.0.1:{self.port}",
            "HF_HOME": str(self.home),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "PYTHONPATH": str(ROOT),
            "NO_PROXY": "*",
        }
        return kept | ours | more

    def start(self, name: str, *args: object, env: dict[str, str] | None = None, **options: object) -> subprocess.Popen[str]:
        """Start ``hub.name(*args, **options)`` in a fresh interpreter."""
        call = json.dumps([name, [str(arg) for arg in args], options], default=str)
        command = [sys.executable, "-W", "error:::gmml_models.hub.folder", "-c", _CLIENT, call]
        return subprocess.Popen(
            command, env=self.environment(**(env or {})), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=self.home
        )

    def call(self, name: str, *args: object, env: dict[str, str] | None = None, **options: object) -> Answer:
        """The result of ``hub.name(*args, **options)``, run against this server with the real client."""
        return finished(self.start(name, *args, env=env, **options))

    def asked(self, method: str = "", path: str = "/resolve/|/cdn/") -> list[Request]:
        return [request for request in self.requests if method in request.method and re.search(path, request.path)]


def finished(process: subprocess.Popen[str], timeout: float = 120) -> Answer:
    out, err = process.communicate(timeout=timeout)
    assert process.returncode == 0, err
    assert "Traceback" not in err, err
    said = json.loads(out.strip().splitlines()[-1])
    error, message, cause = said["error"] or (None, "", "")
    assert TOKEN not in out + err
    return Answer(said["value"], error, message, cause)


def dead_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def serving(home: Path) -> Iterator[Hub]:
    """A running server."""
    home.mkdir(parents=True, exist_ok=True)
    hub = Hub(home)
    thread = threading.Thread(target=hub.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.server.shutdown()
        hub.server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None: ...

    @property
    def hub(self) -> Hub:
        found = self.server.hub  # type: ignore[attr-defined]
        assert isinstance(found, Hub)
        return found

    def do_GET(self) -> None:
        self.answer()

    def do_HEAD(self) -> None:
        self.answer()

    def do_POST(self) -> None:
        self.answer()

    def do_PUT(self) -> None:
        self.answer()

    def answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        host = str(self.headers.get("Host", "")).partition(":")[0]
        fault = None
        with self.hub.lock:
            self.hub.requests.append(Request(self.command, path, host, "Authorization" in self.headers))
            for each in self.hub.faults:
                if each.times > 0 and self.command in each.method.split("|") and re.search(each.path, path):
                    each.times -= 1
                    fault = each.kind
                    break
        if fault and fault[0].isdigit():
            status, _, code = fault.partition(":")
            self.send(int(status), b"", {"X-Error-Code": code} if code else {})
            return
        try:
            self.route(path, body, fault)
        except KeyError as error:
            code = {"repo": "RepoNotFound", "revision": "RevisionNotFound"}.get(error.args[0], "EntryNotFound")
            self.send(404, b"", {"X-Error-Code": code})

    def route(self, path: str, body: bytes, fault: str | None) -> None:
        if path == "/api/repos/create":
            about = json.loads(body)
            name = f"{about['organization']}/{about['name']}"
            status = 409 if name in self.hub.repos else 200
            if status == 200:
                self.hub.commit(name, "main", {".gitattributes": b""})
            self.json({"url": f"{self.base}/{name}"}, status)
        elif path == "/api/validate-yaml":
            self.json({"errors": [], "warnings": []})
        elif found := re.fullmatch(r"/cdn/(\w+)", path):
            self.file(self.hub.lfs[found[1]], {}, fault)
        elif (found := re.fullmatch(r"/upload/(\w+)", path)) and self.command == "PUT":
            assert hashlib.sha256(body).hexdigest() == found[1]
            self.hub.lfs[found[1]] = body
            self.send(200)
        elif path.startswith("/upload/"):
            self.json({}, 200 if json.loads(body)["oid"] in self.hub.lfs else 404)
        elif found := re.fullmatch(r"/([^/]+/[^/]+?)(?:\.git)/info/lfs/objects/batch", path):
            self.json({"transfer": "basic", "objects": [self.upload(each) for each in json.loads(body)["objects"]]})
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/(preupload|commit|branch|revision|tree)/(.+)", path):
            self.api(self.repo(found[1]), found[1], found[2], found[3], body)
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)", path):
            self.api(self.repo(found[1]), found[1], "revision", "main", body)
        elif found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/(refs/pr/\d+|[^/]+)/(.+)", path):
            self.resolve(found[1], found[2], found[3], fault)
        else:
            self.send(404)

    def repo(self, name: str) -> Repo:
        if name not in self.hub.repos:
            raise KeyError("repo")
        return self.hub.repos[name]

    def revision(self, repo: Repo, revision: str) -> str:
        commit = repo.refs.get(revision, revision)
        if commit not in repo.commits:
            raise KeyError("revision")
        return commit

    def upload(self, about: dict[str, Any]) -> dict[str, Any]:
        oid = about["oid"]
        actions = {"upload": {"href": f"{self.base}/upload/{oid}"}, "verify": {"href": f"{self.base}/upload/verify"}}
        return {"oid": oid, "size": about["size"]} | ({} if oid in self.hub.lfs else {"actions": actions})

    def api(self, repo: Repo, name: str, verb: str, rest: str, body: bytes) -> None:
        if verb == "branch":
            status = 409 if rest in repo.refs else 200
            repo.refs.setdefault(rest, repo.refs["main"])
            self.json({}, status)
            return
        commit = self.revision(repo, rest.partition("/")[0])
        if verb == "revision":
            self.json({"id": name, "sha": commit, "siblings": [{"rfilename": path} for path in repo.commits[commit]]})
        elif verb == "tree":
            entries = []
            for path, content in repo.commits[commit].items():
                oid = hashlib.sha1(content).hexdigest()
                entries.append({"type": "file", "path": path, "size": len(content), "oid": oid})
            self.json(entries)
        elif verb == "preupload":
            asked = json.loads(body)["files"]
            modes = {each["path"]: "lfs" if each["path"].endswith(".safetensors") else "regular" for each in asked}
            self.json({"files": [{"path": path, "uploadMode": mode, "shouldIgnore": False} for path, mode in modes.items()]})
        else:
            files = {}
            for line in map(json.loads, body.splitlines()):
                value = line["value"]
                if line["key"] == "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    files[value["path"]] = self.hub.lfs[value["oid"]]
            asked = urlsplit(self.path).query == "create_pr=1"
            if asked:  # a pull request begins at the branch
                repo.refs["refs/pr/1"] = commit
            commit = self.hub.commit(name, "refs/pr/1" if asked else rest, files)
            told = {"commitUrl": f"{self.base}/{name}/commit/{commit}", "commitOid": commit, "success": True}
            self.json(told | ({"pullRequestUrl": f"{self.base}/{name}/discussions/1"} if asked else {}))

    def resolve(self, name: str, revision: str, path: str, fault: str | None) -> None:
        repo = self.repo(name)
        commit = self.revision(repo, revision)
        content = repo.commits[commit][path]
        oid = hashlib.sha256(content).hexdigest()
        headers = {"X-Repo-Commit": commit, "ETag": f'"{hashlib.sha1(content).hexdigest()}"'}
        if path.endswith(".safetensors"):  # large files lie on another origin
            self.hub.lfs[oid] = content
            headers |= {"X-Linked-Etag": f'"{oid}"', "X-Linked-Size": str(len(content))}
            self.send(302, b"", headers | {"Location": f"http://localhost:{self.hub.port}/cdn/{oid}"})
        else:
            self.file(content, headers, fault)

    def file(self, content: bytes, headers: dict[str, str], fault: str | None) -> None:
        if self.command == "HEAD":
            fault = None
        if fault == "bytes":
            content = content[:-1] + bytes([content[-1] ^ 1])
        elif fault == "longer":
            content += b"more"
        elif fault == "shorter":
            content = content[:-4]
        self.send(200, content, headers, cut=fault in ("drop", "slow"))
        if fault == "slow":
            time.sleep(30)

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.hub.port}"

    def json(self, value: object, status: int = 200) -> None:
        self.send(status, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def send(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None, *, cut: bool = False) -> None:
        self.send_response(status)
        for key, value in ({"Content-Length": str(len(body))} | (headers or {})).items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[: len(body) // 2] if cut else body)
            self.wfile.flush()
        if cut:
            self.close_connection = True
