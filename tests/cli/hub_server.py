"""A small server that speaks the hub's file protocol, for tests: revision, tree, and files with ranges, from a dict."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

COMMIT = hashlib.sha1(b"the only commit").hexdigest()


class Hub:
    """One repository, ``org/tiny``; ``org/gated`` is gated, others are not there. ``asked``: methods and paths."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        self.asked: list[tuple[str, str]] = []

    def tree(self) -> list[dict[str, object]]:
        """What ``/api/models/org/tree`` lists; large files as git-lfs objects, as the hub has them."""
        return [self._entry(name, content) for name, content in self.files.items()]

    @staticmethod
    def _entry(name: str, content: bytes) -> dict[str, object]:
        entry: dict[str, object] = {
            "type": "file",
            "path": name,
            "size": len(content),
            "oid": hashlib.sha1(content).hexdigest(),
        }
        if name.endswith(".safetensors"):
            entry["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}
        return entry


def handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    """The request handler of a hub."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            path = unquote(self.path.partition("?")[0])
            hub.asked.append((self.command, path))
            match path.strip("/").split("/"):
                case ["api", "models", "org", "gated", *_] | ["org", "gated", *_]:
                    self.refuse(403, "GatedRepo", "Access to model org/gated is restricted.")
                case ["api", "models", "org", "tiny", "revision", revision]:
                    self.revision(revision)
                case ["api", "models", "org", "tiny"]:
                    self.revision("main")
                case ["api", "models", "org", "tiny", "tree", *_]:
                    self.answer(json.dumps(hub.tree()).encode(), {"Content-Type": "application/json"})
                case ["org", "tiny", "resolve", _, *name]:
                    self.file("/".join(name))
                case _:
                    self.refuse(401, "RepoNotFound", "Repository not found")

        def revision(self, revision: str) -> None:
            if revision not in ("main", "v1", COMMIT):
                self.refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
                return
            siblings = [{"rfilename": name} for name in hub.files]
            body = {"id": "org/tiny", "modelId": "org/tiny", "sha": COMMIT, "siblings": siblings, "tags": []}
            self.answer(json.dumps(body).encode(), {"Content-Type": "application/json"})

        def file(self, name: str) -> None:
            if name not in hub.files:
                self.refuse(404, "EntryNotFound", "Entry not found")
                return
            content = hub.files[name]
            etag = hashlib.sha256(content).hexdigest()
            headers = {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
            start = 0
            if wanted := self.headers.get("Range"):
                start = int(wanted.removeprefix("bytes=").split("-")[0])
                headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            self.answer(content[start:], headers, status=206 if wanted else 200)

        def answer(self, body: bytes, headers: dict[str, str], status: int = 200) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def refuse(self, status: int, code: str, message: str) -> None:
            headers = {"X-Error-Code": code, "X-Error-Message": message, "Content-Type": "application/json"}
            self.answer(json.dumps({"error": message}).encode(), headers, status)

    return Handler


@contextmanager
def serving(hub: Hub) -> Iterator[str]:
    """Serve on a free port of the loopback address; the address to use as HF_ENDPOINT."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(hub))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
