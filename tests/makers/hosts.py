"""A static host on this machine, as strict as one can be."""

from __future__ import annotations

import contextlib
import functools
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class _Strict(http.server.SimpleHTTPRequestHandler):
    """Files with a content security policy of the host's own."""

    policy = ""

    def log_message(self, *_: Any) -> None:
        """Nothing."""

    def end_headers(self) -> None:
        """With headers that the page's own policy only narrows."""
        self.send_header("Content-Security-Policy", self.policy)
        super().end_headers()


STRICT = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; connect-src 'self'; "
    "style-src 'self'; img-src 'self' data:"
)


@contextlib.contextmanager
def serving(folder: Path, policy: str = STRICT) -> Iterator[str]:
    """The address of a folder's files."""
    kind = type("Handler", (_Strict,), {"policy": policy})
    handler = functools.partial(kind, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()
