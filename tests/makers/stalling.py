"""A web server of this process that falls silent."""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@contextlib.contextmanager
def stalling(files: Mapping[str, bytes], answers: int, *, leaves: bool = False) -> Iterator[str]:
    """Serve files, and parts of them; its address.

    Args:
        files: By path, which begins with a slash.
        answers: How many requests it answers; of the next it gives half the content.
        leaves: Whether it ends the connection there; else nothing more comes.
    """
    over = threading.Event()
    asked = iter(range(answers))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            whole = files.get(self.path.partition("?")[0])
            content, status = whole or b"", 404 if whole is None else 200
            if part := re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", "")):
                content, status = content[int(part[1]) : int(part[2]) + 1], 206
            self.send_response(status)
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command == "HEAD":
                return
            if next(asked, None) is not None:
                self.wfile.write(content)
                return
            self.wfile.write(content[: len(content) // 2])
            self.wfile.flush()
            self.close_connection = True
            if not leaves:
                over.wait(20)

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        serving = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        serving.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            over.set()
            server.shutdown()
            serving.join()
