"""A small server on loopback that speaks the part of the Hub's protocol that pushing and pulling a model needs.

Repos live in memory: a list of commits, each a snapshot {path: bytes}. Uploads are answered "regular", so that file
contents travel in the commit itself, without LFS. A repo can be gated or private: then a token is asked for.
"""

import base64
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit


TOKEN = "hf_thisIsATestTokenOfTheLoopbackHub"


@dataclass
class Repo:
    commits: list[tuple[str, dict[str, bytes]]] = field(default_factory=list)
    branches: dict[str, str] = field(default_factory=dict)
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


class Hub:
    """`with Hub() as hub:` serves at `hub.endpoint`; `hub.repos` is what it holds, `hub.requests` what it was asked."""

    def __init__(self):
        self.repos: dict[str, Repo] = {}
        self.requests: list[str] = []

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
                body = files[match[3]]
                etag = f'"{hashlib.sha1(body).hexdigest()}"'
                self._reply(200, body, X_Repo_Commit=sha, ETag=etag, Accept_Ranges="bytes")
        else:
            self._error(404, "EntryNotFound")

    def do_POST(self):
        path = unquote(urlsplit(self.path).path)
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
            repo = self.hub.repos.setdefault(name, Repo(locked="RepoNotFound" if asked.get("private") else ""))
            if not known:
                repo.commit({".gitattributes": b""})
            return self._reply(409 if known else 200, {"url": f"{self.hub.endpoint}/{name}", "id": name})
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/(preupload|commit)/(.+)", path):
            repo = self.hub.repos.get(match[1])
            if repo is None:
                return self._error(404, "RepoNotFound")
            if match[2] == "preupload":
                files = [
                    {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False}
                    for f in json.loads(body)["files"]
                ]
                return self._reply(200, {"files": files})
            files = dict((repo.at(match[3]) or repo.at("main"))[1])
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
                elif line["key"] == "deletedFile":
                    files.pop(line["value"]["path"], None)
            sha = repo.commit(files, match[3])
            return self._reply(200, {"commitOid": sha, "commitUrl": f"{self.hub.endpoint}/{match[1]}/commit/{sha}"})
        self._error(404, "EntryNotFound")
