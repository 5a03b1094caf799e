"""HTTP in front of tests/quirky.py, on a free port of 127.0.0.1."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

from tests.personalities import Personality, Play, Raw
from tests.quirky import Quirky, Refused


class Handler(BaseHTTPRequestHandler):
    """Requests in; the faults that are due, else the server's own answers out."""

    protocol_version = "HTTP/1.1"
    quirky: Quirky

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing is printed."""

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_DELETE(self) -> None:
        self._answer()

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        path = unquote(self.path.partition("?")[0])
        with self.quirky.lock:
            self.quirky.asked.append((self.command, path))
            faults = self.quirky.faults
            fault = next((one for one in faults if one.method == self.command and fnmatch(path, one.path)), None)
            if fault:
                faults.remove(fault)
            status, data = self._own(path, body) if fault is None or fault.done else (fault.status, fault.body)
            if fault:
                status, data = fault.status, fault.body
        if not status:
            self.close_connection = True
            return
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _own(self, path: str, body: bytes) -> tuple[int, bytes]:
        server = self.quirky
        try:
            match self.command, path.split("/")[2:]:
                case "POST", ["files"]:
                    return 200, _json(server.upload(*_file_of(body, self.headers["content-type"])))
                case "GET", ["files", file_id, "content"]:
                    return 200, server.content(file_id)
                case "POST", ["batches"]:
                    return 200, _json(server.create(json.loads(body)))
                case "POST", ["batches", batch_id, "cancel"]:
                    return 200, _json(server.cancel(batch_id))
                case method, parts:
                    return 200, _json(self._plain(method, parts))
        except Refused as error:
            return error.status, _json(server.who.error(str(error)))

    def _plain(self, method: str, parts: list[str]) -> Raw:
        routes: dict[tuple[str, str, int], Callable[..., Raw]] = {
            ("GET", "files", 1): self.quirky.list_files,
            ("DELETE", "files", 2): self.quirky.delete,
            ("GET", "batches", 1): self.quirky.list_batches,
            ("GET", "batches", 2): self.quirky.poll,
        }
        found = routes.get((method, parts[0], len(parts)))
        if found is None:
            raise Refused(404, "Not Found")
        return found(*parts[1:])


def _json(value: Raw) -> bytes:
    return json.dumps(value).encode()


def _file_of(body: bytes, kind: str) -> tuple[str, bytes]:
    """The name and the bytes of the file in a multipart body."""
    mark = b"--" + kind.partition("boundary=")[2].strip('"').encode()
    for part in body.split(mark):
        head, _, data = part.partition(b"\r\n\r\n")
        if b'filename="' in head:
            return head.partition(b'filename="')[2].partition(b'"')[0].decode(), data.removesuffix(b"\r\n")
    return "upload", b""


@contextmanager
def quirky(who: Personality, *plays: Play) -> Iterator[Quirky]:
    """The server on a free port of 127.0.0.1, until the block ends."""
    state = Quirky(who, *plays)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"quirky": state}))
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
