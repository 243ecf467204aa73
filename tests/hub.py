"""A small server on loopback that speaks the part of the Hub's protocol that pushing and pulling a model needs.

Repos live in memory: a list of commits, each a snapshot {path: bytes}. Files in safetensors go by LFS, others travel
in the commit itself; what a .gitignore names is left out. A repo can be gated or private: then a token is asked for.
Connections can be cut in the middle.
"""

import base64
import hashlib
import json
import re
import socket
import threading
from dataclasses import dataclass, field
from fnmatch import fnmatch
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit


TOKEN = "hf_thisIsATestTokenOfTheLoopbackHub"


@dataclass
class Repo:
    commits: list[tuple[str, dict[str, bytes]]] = field(default_factory=list)
    branches: dict[str, str] = field(default_factory=dict)
    pull_requests: int = 0
    locked: str = ""
    """"", "GatedRepo" or "RepoNotFound" (what a private repo says to a stranger)."""

    def commit(self, files: dict[str, bytes], branch: str = "main") -> str:
        sha = hashlib.sha1(f"{len(self.commits)}{sorted(files)}".encode() + b"".join(files.values())).hexdigest()
        self.commits.append((sha, files))
        self.branches[branch] = sha
        return sha

    def at(self, revision: str) -> tuple[str, dict[str, bytes]] | None:
        sha = self.branches.get(revision, revision)
        return next((commit for commit in self.commits if commit[0] == sha), None)


def _oid(body: bytes) -> str:
    return hashlib.sha1(body).hexdigest()


class Hub:
    """`with Hub() as hub:` serves at `hub.endpoint`; `hub.repos` is what it holds, `hub.requests` what it was asked.
    The next `hub.cut["GET"]` downloads and `hub.cut["PUT"]` uploads of LFS files end in the middle."""

    def __init__(self):
        self.repos: dict[str, Repo] = {}
        self.requests: list[str] = []
        self.lfs: dict[str, bytes] = {}
        self.cut = {"GET": 0, "PUT": 0}
        self.moves: dict[str, dict[str, bytes]] = {}
        """{repo: the files that its main branch moves to as soon as its config.json has been read}."""

    def __enter__(self) -> "Hub":
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()

    def environment(self, home) -> dict[str, str]:
        """What a process needs to take this server for the Hub, with a cache of its own."""
        return {
            "HF_ENDPOINT": self.endpoint,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
        }


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self._get()

    def do_GET(self):
        self._get()

    def _reply(self, status: int, body: bytes | dict | None = None, **headers):
        if isinstance(body, dict):
            body, headers = json.dumps(body).encode(), headers | {"Content-Type": "application/json"}
        body = body or b""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _error(self, status: int, code: str, **headers):
        self._reply(status, {"error": code}, X_Error_Code=code, X_Error_Message=code, **headers)

    def _repo(self, name: str) -> Repo | None:
        """The repo, if it exists and the caller may see it; else the error has been sent."""
        repo = self.hub.repos.get(name)
        known = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        if repo is None or (repo.locked == "RepoNotFound" and not known):
            self._error(404 if known else 401, "RepoNotFound")
            return None
        if repo.locked == "GatedRepo" and not known:
            self._error(403, "GatedRepo")
            return None
        return repo

    def _get(self):
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"{self.command} {path}")
        if path == "/api/whoami-v2":
            self._reply(200, {"name": "me", "type": "user"})
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", path):
            if repo := self._repo(match[1]):
                if (commit := repo.at(match[2] or "main")) is None:
                    return self._error(404, "RevisionNotFound")
                sha, files = commit
                siblings = [{"rfilename": name} for name in files]
                self._reply(200, {"id": match[1], "modelId": match[1], "sha": sha, "siblings": siblings, "tags": []})
        elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            if repo := self._repo(match[1]):
                if (commit := repo.at(match[2])) is None:
                    return self._error(404, "RevisionNotFound")
                sha, files = commit
                if match[3] not in files:
                    return self._error(404, "EntryNotFound", X_Repo_Commit=sha)
                self._file(match[3], files[match[3]], sha)
                if match[3] == "config.json" and self.command == "GET" and match[1] in self.hub.moves:
                    repo.commit(files | self.hub.moves.pop(match[1]))
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/([^/]+)", path):
            if repo := self._repo(match[1]):
                if (commit := repo.at(match[2])) is None:
                    return self._error(404, "RevisionNotFound")
                entries = [{"type": "file", "path": n, "size": len(b), "oid": _oid(b)} for n, b in commit[1].items()]
                self._reply(200, json.dumps(entries).encode(), Content_Type="application/json")
        else:
            self._error(404, "EntryNotFound")

    def _file(self, name: str, body: bytes, sha: str):
        """A file, or the part of it that a Range header asks for."""
        headers = {"X_Repo_Commit": sha, "ETag": f'"{_oid(body)}"', "Accept_Ranges": "bytes"}
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        status, start = (206, int(asked[1])) if asked else (200, 0)
        if asked:
            self.hub.requests.append(f"RANGE {start} {name}")
            headers["Content_Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
        if self.command == "GET" and name.endswith(".safetensors") and self.hub.cut["GET"] > 0:
            self.hub.cut["GET"] -= 1
            self.send_response(status)
            for header, value in headers.items():
                self.send_header(header.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(body) - start))
            self.end_headers()
            self.wfile.write(body[start : start + (len(body) - start) // 2])
            self.wfile.flush()
            return self._hang_up()
        self._reply(status, body[start:], **headers)

    def _hang_up(self):
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def do_PUT(self):
        oid = urlsplit(self.path).path.removeprefix("/lfs/")
        self.hub.requests.append(f"PUT {oid}")
        length = int(self.headers.get("Content-Length", 0))
        if self.hub.cut["PUT"] > 0:
            self.hub.cut["PUT"] -= 1
            self.rfile.read(length // 2)
            return self._hang_up()
        body = self.rfile.read(length)
        if hashlib.sha256(body).hexdigest() != oid:
            return self._error(400, "BadOid")
        self.hub.lfs[oid] = body
        self._reply(200)

    def do_POST(self):
        path, query = unquote(urlsplit(self.path).path), parse_qs(urlsplit(self.path).query)
        self.hub.requests.append(f"POST {path}")
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._error(401, "Unauthorized")
        if path == "/api/validate-yaml":
            return self._reply(200, {"errors": [], "warnings": []})
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked.get('organization') or 'me'}/{asked['name']}"
            known = name in self.hub.repos
            private = asked.get("private") or asked.get("visibility") == "private"
            repo = self.hub.repos.setdefault(name, Repo(locked="RepoNotFound" if private else ""))
            if not known:
                repo.commit({".gitattributes": b""})
            return self._reply(409 if known else 200, {"url": f"{self.hub.endpoint}/{name}", "id": name})
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/(preupload|commit)/(.+)", path):
            repo = self.hub.repos.get(match[1])
            if repo is None:
                return self._error(404, "RepoNotFound")
            if match[2] == "preupload":
                asked = json.loads(body)
                patterns = asked.get("gitIgnore", "").split()
                answer = [
                    {
                        "path": (name := file["path"]),
                        "uploadMode": "lfs" if name.endswith(".safetensors") else "regular",
                        "shouldIgnore": any(
                            fnmatch(folder, pattern.rstrip("/")) for folder in name.split("/") for pattern in patterns
                        ),
                    }
                    for file in asked["files"]
                ]
                return self._reply(200, {"files": answer})
            return self._commit(repo, match[1], match[3], body, bool(query.get("create_pr")))
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/branch/(.+)", path):
            repo = self.hub.repos[match[1]]
            known = match[2] in repo.branches
            repo.branches.setdefault(match[2], repo.branches["main"])
            return self._reply(409 if known else 200, {"error": "exists"} if known else {})
        if path.endswith(".git/info/lfs/objects/batch"):
            objects = []
            for asked in json.loads(body)["objects"]:
                entry = {"oid": asked["oid"], "size": asked["size"]}
                if asked["oid"] not in self.hub.lfs:
                    entry["actions"] = {"upload": {"href": f"{self.hub.endpoint}/lfs/{asked['oid']}"}}
                objects.append(entry)
            return self._reply(200, {"transfer": "basic", "objects": objects})
        self._error(404, "EntryNotFound")

    def _commit(self, repo: Repo, name: str, branch: str, body: bytes, create_pr: bool):
        files = dict((repo.at(branch) or repo.at("main"))[1])
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                if value["oid"] not in self.hub.lfs:
                    return self._error(400, "LfsObjectMissing")
                files[value["path"]] = self.hub.lfs[value["oid"]]
            elif line["key"] == "deletedFile":
                files.pop(value["path"], None)
        answer = {}
        if create_pr:
            repo.pull_requests += 1
            branch = f"refs/pr/{repo.pull_requests}"
            answer["pullRequestUrl"] = f"{self.hub.endpoint}/{name}/discussions/{repo.pull_requests}"
        sha = repo.commit(files, branch)
        self._reply(200, answer | {"commitOid": sha, "commitUrl": f"{self.hub.endpoint}/{name}/commit/{sha}"})


LOAD = """
    save(AutoModelForCausalLM.from_pretrained("me/steered", trust_remote_code=True, **eval(sys.argv[2])), sys.argv[1])
"""

SETUP = """
import sys, torch
sys.modules["iti_llama"] = None  # nothing of ours is installed
from transformers import AutoModelForCausalLM
ids = torch.randint(3, 97, (3, 11), generator=torch.Generator().manual_seed(1))

def save(model, out):
    with torch.no_grad():
        torch.save(model(ids).logits, out)
"""
