"""A web server of one folder that can misbehave: damage, cut, refuse or stall its answers."""

import contextlib
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote


@dataclass
class FileServer:
    """`faults[path]` is used up from the front, one an answer; then the file is served as it is.

    Faults: "damage" (one byte changed), "cut" (half the file), "stall" (half, then silence until
    the server ends), or a status such as 503.
    """

    url: str = ""
    faults: dict[str, list[str | int]] = field(default_factory=dict)
    requests: Counter[str] = field(default_factory=Counter)
    stalled: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)


@contextlib.contextmanager
def serve(root: Path) -> Iterator[FileServer]:
    """Serve `root` at a free port of this machine while the context lasts."""
    state = FileServer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            path = unquote(self.path).lstrip("/")
            state.requests[path] += 1
            waiting = state.faults.get(path, [])
            fault = waiting.pop(0) if waiting else None
            if isinstance(fault, int) or not (root / path).is_file():
                self.send_error(fault if isinstance(fault, int) else 404)
                return
            contents = (root / path).read_bytes()
            if fault == "damage":
                contents = contents[:-1] + bytes([contents[-1] ^ 1])
            self.send_response(200)
            self.send_header("Content-Length", str(len(contents)))
            self.end_headers()
            if fault in ("cut", "stall"):
                self.wfile.write(contents[: len(contents) // 2])
                self.wfile.flush()
                if fault == "stall":
                    state.stalled.set()
                    state.ended.wait()
                return
            self.wfile.write(contents)

        def log_message(self, format, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield state
    finally:
        state.ended.set()
        server.shutdown()
        thread.join()
        server.server_close()


def closed_url() -> str:
    """An address of this machine where nobody listens."""
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        return f"http://127.0.0.1:{server.server_port}"
