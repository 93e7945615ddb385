"""A Hugging Face Hub of one's own on the loopback: repositories in memory, and the requests that huggingface_hub makes of it."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml

TOKEN = "hf_testing"
OWNER = "someone"


class FakeHub:
    """What it holds and was asked.

    Attributes:
        repositories: name → file → content.
        private, gated: names of those that only the token's owner, or nobody, may see.
        asked: every request, "METHOD path".
    """

    def __init__(self) -> None:
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.private: set[str] = set()
        self.gated: set[str] = set()
        self.asked: list[str] = []
        self.address = ""

    def sha(self, name: str) -> str:
        files = self.repositories[name]
        return hashlib.sha1(b"".join(k.encode() + v for k, v in sorted(files.items()))).hexdigest()


def handler_of(hub: FakeHub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: Any) -> None:
            pass

        def answer(self, status: int, body: Any = b"", **headers: str) -> None:
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        def body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") == "chunked":
                parts = []
                while size := int(self.rfile.readline(), 16):
                    parts.append(self.rfile.read(size))
                    self.rfile.readline()
                self.rfile.readline()
                return b"".join(parts)
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))

        def serve(self) -> None:
            path = unquote(urlsplit(self.path).path)
            hub.asked.append(f"{self.command} {path}")
            body = self.body() if self.command in ("POST", "PUT") else b""
            known = self.headers.get("Authorization") == f"Bearer {TOKEN}"
            words = path.strip("/").split("/")
            if self.command == "POST" and not known:
                return self.answer(401, {"error": "Invalid credentials"}, X_Error_Message="Invalid credentials")
            if path == "/api/repos/create":
                asked = json.loads(body)
                name = f"{asked.get('organization') or OWNER}/{asked['name']}"
                if name in hub.repositories:
                    return self.answer(409, {"error": "exists", "url": f"{hub.address}/{name}"})
                hub.repositories[name] = {}
                if asked.get("private") or asked.get("visibility") == "private":
                    hub.private.add(name)
                return self.answer(200, {"url": f"{hub.address}/{name}", "name": name})
            if path == "/api/validate-yaml":
                _, front, _ = json.loads(body)["content"].split("---\n", 2)
                assert isinstance(yaml.safe_load(front), dict)
                return self.answer(200, {"errors": [], "warnings": []})
            if words[0] == "api" and words[1] == "models":
                return self.model("/".join(words[2:4]), words[4:], body, known)
            if len(words) == 5 and words[2] == "resolve":
                return self.file("/".join(words[:2]), words[4], known)
            return self.answer(404, {"error": "not found"})

        def visible(self, name: str, known: bool) -> bool:
            if name not in hub.repositories or (name in hub.private and not known):
                # So the Hub answers, whichever of the two it is.
                self.answer(401, {"error": "Invalid username or password."}, X_Error_Code="RepoNotFound")
                return False
            if name in hub.gated:
                self.answer(403, {"error": "gated"}, X_Error_Code="GatedRepo")
                return False
            return True

        def model(self, name: str, rest: list[str], body: bytes, known: bool) -> None:
            if not self.visible(name, known):
                return
            files = hub.repositories[name]
            if rest[:1] == ["preupload"]:
                modes = [
                    {
                        "path": file["path"],
                        "uploadMode": "regular",  # large files go another way (Xet), which is the package's own business
                        "shouldIgnore": False,
                        "oid": None,
                    }
                    for file in json.loads(body)["files"]
                ]
                return self.answer(200, {"files": modes})
            if rest[:1] == ["commit"]:
                for line in body.decode().splitlines():
                    item = json.loads(line)
                    value = item["value"]
                    if item["key"] == "file":
                        files[value["path"]] = base64.b64decode(value["content"])
                sha = hub.sha(name)
                return self.answer(
                    200, {"success": True, "commitUrl": f"{hub.address}/{name}/commit/{sha}", "commitOid": sha}
                )
            if rest[:1] == ["revision"] and rest[1] not in ("main", hub.sha(name)):
                return self.answer(404, {"error": "no revision"}, X_Error_Code="RevisionNotFound")
            siblings = [{"rfilename": file} for file in files]
            return self.answer(
                200, {"id": name, "sha": hub.sha(name), "siblings": siblings, "private": name in hub.private}
            )

        def file(self, name: str, file: str, known: bool) -> None:
            if not self.visible(name, known):
                return
            content = hub.repositories[name].get(file)
            if content is None:
                return self.answer(404, {"error": "no file"}, X_Error_Code="EntryNotFound")
            tag = hashlib.sha256(content).hexdigest()
            self.answer(200, content, ETag=f'"{tag}"', X_Repo_Commit=hub.sha(name))

        do_GET = do_HEAD = do_POST = do_PUT = serve

    return Handler


@contextmanager
def serving() -> Iterator[FakeHub]:
    hub = FakeHub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler_of(hub))
    server.daemon_threads = True
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
