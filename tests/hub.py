"""A Hub on the loopback: enough of it for the real client to push and to pull. Everything lies in memory."""

import base64
import hashlib
import json
import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

WRITE, READ = "hf_write", "hf_read"  # the tokens it knows
REPO = r"(?P<repo>[\w.\-]+/[\w.\-]+)"


class Refusal(Exception):
    """An answer other than 200: status, and what the client is told."""

    def __init__(self, status: int, code: str = "", message: str = "", body: dict | None = None) -> None:
        self.status, self.code, self.message, self.body = status, code, message, body or {}


class Hub:
    """Repositories, and how the Hub is to misbehave.

    repos: {user/name: {"private", "branches": {branch: commit}, "commits": {commit: {path: bytes}}, "lfs": paths kept
    as large files}}; broken: {(method, part of the path): status}; cut: {path in a repository: "short" (fewer bytes,
    told so) or "broken off"}; log: requests.
    """

    def __init__(self) -> None:
        self.repos: dict[str, dict] = {}
        self.blobs: dict[str, bytes] = {}
        self.verified: set[str] = set()
        self.broken: dict[tuple[str, str], int] = {}
        self.cut: dict[str, str] = {}
        self.messages: dict[str, str] = {}  # of commits
        self.log: list[tuple[str, str]] = []
        self.url = ""

    def files(self, repo: str, revision: str = "main") -> dict[str, bytes]:
        """{path: bytes} of a branch or a commit."""
        return self.repos[repo]["commits"][self.commit(repo, revision)]

    def commit(self, repo: str, revision: str) -> str:
        """The commit that a branch or a commit's name stands for."""
        held = self._repo(repo)
        commit = held["branches"].get(revision, revision)
        if commit not in held["commits"]:
            raise Refusal(404, "RevisionNotFound")
        return commit

    def commits(self, repo: str) -> int:
        """How many there are, the first and empty one included."""
        return len(self.repos[repo]["commits"]) if repo in self.repos else 0

    def _repo(self, repo: str) -> dict:
        if repo not in self.repos:
            raise Refusal(404, "RepoNotFound")
        return self.repos[repo]

    def create(self, body: dict) -> dict:
        """A new repository with a first commit."""
        repo = f"{body['organization'] or 'me'}/{body['name']}"
        if not repo.startswith("me/"):
            raise Refusal(404, message="No such namespace")
        answer = {"url": f"{self.url}/{repo}", "name": repo}
        if repo in self.repos:
            raise Refusal(409, message="You already created this model repo", body=answer)
        first = "0" * 40
        private = body.get("visibility") == "private"
        self.repos[repo] = {
            "private": private,
            "branches": {"main": first},
            "commits": {first: {".gitattributes": b""}},
        }
        return answer

    def branch(self, repo: str, name: str) -> dict:
        """A branch that starts where main is."""
        branches = self._repo(repo)["branches"]
        if name in branches:
            raise Refusal(409, message="Reference already exists")
        branches[name] = branches["main"]
        return {}

    def preupload(self, repo: str, revision: str, body: dict) -> dict:
        """Which files travel as large files, and what is there already."""
        there = self.files(repo, self.commit(repo, revision))
        return {
            "files": [
                {"path": f["path"], "shouldIgnore": False, "uploadMode": "lfs" if _large(f["path"]) else "regular"}
                | {"oid": _oid(f["path"], there[f["path"]]) if f["path"] in there else None}
                for f in body["files"]
            ]
        }

    def batch(self, body: dict) -> dict:
        """Where large files go; one that is there gets no address."""
        objects = []
        for o in body["objects"]:
            actions = {"upload": {"href": f"{self.url}/lfs/{o['oid']}"}, "verify": {"href": f"{self.url}/verify"}}
            objects.append(
                {"oid": o["oid"], "size": o["size"]} | ({} if o["oid"] in self.verified else {"actions": actions})
            )
        return {"transfer": "basic", "objects": objects}

    def put(self, oid: str, content: bytes) -> dict:
        """Keeps a large file, if it is what it says."""
        if hashlib.sha256(content).hexdigest() != oid:
            raise Refusal(400, message="wrong content")
        self.blobs[oid] = content
        return {}

    def verify(self, body: dict) -> dict:
        """Whether a large file arrived whole."""
        if len(self.blobs.get(body["oid"], b"")) != body["size"]:
            raise Refusal(422, message="not there")
        self.verified.add(body["oid"])
        return {}

    def make_commit(self, repo: str, revision: str, lines: list[dict]) -> dict:
        """All of a commit, or nothing."""
        held, parent = self._repo(repo), self.commit(repo, revision)
        files = dict(held["commits"][parent])
        for line in lines[1:]:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                if value["oid"] not in self.verified:
                    raise Refusal(400, message="a large file is missing")
                files[value["path"]] = self.blobs[value["oid"]]
            else:
                del files[value["path"]]
        commit = hashlib.sha1(f"{parent}{json.dumps(lines)}".encode()).hexdigest()
        held["commits"][commit] = files
        held["branches"][revision] = commit
        self.messages[commit] = lines[0]["value"]["summary"]
        return {"commitUrl": f"{self.url}/{repo}/commit/{commit}", "commitOid": commit}

    def info(self, repo: str, revision: str) -> dict:
        """Of a model."""
        return {"id": repo, "sha": self.commit(repo, revision), "private": self._repo(repo)["private"], "tags": []}

    def tree(self, repo: str, revision: str) -> list[dict]:
        """All files of a revision."""
        rows = []
        for path, content in self.files(repo, self.commit(repo, revision)).items():
            large = (
                {"lfs": {"oid": _oid(path, content), "size": len(content), "pointerSize": 134}} if _large(path) else {}
            )
            rows.append({"type": "file", "path": path, "size": len(content), "oid": _git_oid(content)} | large)
        return rows


def _large(path: str) -> bool:
    return path.endswith((".safetensors", ".png"))


def _git_oid(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _oid(path: str, content: bytes) -> str:
    return hashlib.sha256(content).hexdigest() if _large(path) else _git_oid(content)


def _check_card(body: dict) -> dict:
    """As the Hub: front matter that is no YAML is refused."""
    try:
        front = yaml.safe_load(body["content"].split("---")[1])
        if not isinstance(front, dict):
            raise ValueError("no front matter")
    except (IndexError, ValueError, yaml.YAMLError) as error:
        raise Refusal(400, body={"errors": [{"message": str(error)}], "warnings": []}) from error
    return {"errors": [], "warnings": []}


class _Handler(BaseHTTPRequestHandler):
    hub: Hub

    def do_HEAD(self) -> None:
        self._answer()

    do_GET = do_POST = do_PUT = do_HEAD

    def _answer(self) -> None:
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))  # also of a request that is refused
        url = urlsplit(self.path)
        self.hub.log.append((self.command, url.path))
        try:
            for (method, part), status in self.hub.broken.items():
                if method == self.command and part in url.path:
                    raise Refusal(status, message="broken")
            if match := re.fullmatch(f"/{REPO}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", url.path):
                self._file(match["repo"], unquote(match["revision"]), unquote(match["path"]))
            else:
                self._json(200, self._route(url.path, parse_qs(url.query), content))
        except Refusal as refusal:
            self._json(refusal.status, refusal.body, {"X-Error-Code": refusal.code, "X-Error-Message": refusal.message})

    def _route(self, path: str, query: dict, content: bytes) -> dict | list:
        hub = self.hub
        if self.command == "PUT" and path.startswith("/lfs/"):  # such addresses are signed: no token
            return hub.put(path.removeprefix("/lfs/"), content)
        if self.command == "POST":
            return self._write(path, content)
        if match := re.fullmatch(f"/api/(models|spaces)/{REPO}(/(?P<kind>revision|tree)/(?P<revision>[^/]+))?", path):
            self._may_read(match["repo"])
            revision = unquote(match["revision"] or "main")
            return (hub.tree if match["kind"] == "tree" else hub.info)(match["repo"], revision)
        raise Refusal(404, message=f"no such address: {path}")

    def _write(self, path: str, content: bytes) -> dict:
        hub = self.hub
        if path == "/api/validate-yaml":
            return _check_card(json.loads(content))
        self._may_write()
        if path == "/api/repos/create":
            return hub.create(json.loads(content))
        if path == "/verify":
            return hub.verify(json.loads(content))
        if re.fullmatch(rf"(/spaces)?/{REPO}\.git/info/lfs/objects/batch", path):
            return hub.batch(json.loads(content))
        match = re.fullmatch(f"/api/(models|spaces)/{REPO}/(?P<kind>branch|preupload|commit)/(?P<revision>[^/]+)", path)
        if not match:
            raise Refusal(404, message=f"no such address: {path}")
        repo, revision = match["repo"], unquote(match["revision"])
        if match["kind"] == "branch":
            return hub.branch(repo, revision)
        if match["kind"] == "preupload":
            return hub.preupload(repo, revision, json.loads(content))
        return hub.make_commit(repo, revision, [json.loads(line) for line in content.splitlines()])

    def _token(self) -> str:
        return self.headers.get("Authorization", "").removeprefix("Bearer ")

    def _may_write(self) -> None:
        if self._token() == READ:
            raise Refusal(403, message="this token may only read")
        if self._token() != WRITE:
            raise Refusal(401, message="Invalid credentials in Authorization header")

    def _may_read(self, repo: str) -> None:
        if self.hub.repos.get(repo, {}).get("private") and self._token() not in (READ, WRITE):
            raise Refusal(401, "RepoNotFound")

    def _file(self, repo: str, revision: str, path: str) -> None:
        self._may_read(repo)
        commit = self.hub.commit(repo, revision)
        content = self.hub.files(repo, commit).get(path)
        if content is None:
            raise Refusal(404, "EntryNotFound")
        cut = self.hub.cut.get(path) if self.command == "GET" else None
        sent = content[: len(content) // 2] if cut else content
        self.send_response(200)
        length = len(sent) if cut == "short" else len(content)
        for name, value in {
            "X-Repo-Commit": commit,
            "ETag": f'"{_oid(path, content)}"',
            "Content-Length": str(length),
        }.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(sent)

    def _json(self, status: int, values: dict | list, headers: dict | None = None) -> None:
        body = json.dumps(values).encode()
        self.send_response(status)
        for name, value in (
            {"Content-Type": "application/json", "Content-Length": str(len(body))} | (headers or {})
        ).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_) -> None:
        pass


@contextmanager
def running_hub():
    """A Hub that listens until the block ends."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


def use_hub(monkeypatch, url: str, cache, token: str | None = WRITE) -> None:
    """Points the real client, which read its settings when it was imported, to ``url`` and to a cache of its own."""
    from huggingface_hub import close_session, constants

    values = {
        "ENDPOINT": url,
        "HUGGINGFACE_CO_URL_TEMPLATE": url + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_HUB_CACHE": str(cache),
        "HF_HUB_DISABLE_XET": True,
        "HF_HUB_OFFLINE": False,
        "HF_TOKEN_PATH": str(cache / "no-token"),
        "HF_STORED_TOKENS_PATH": str(cache / "no-tokens"),
    }
    for name, value in values.items():
        monkeypatch.setattr(constants, name, value)
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_OIDC_RESOURCE"):
        monkeypatch.delenv(name, raising=False)
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    close_session()  # the next one heeds no_proxy
