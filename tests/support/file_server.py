"""A web server on loopback that hands out files, resumes as a real one does, and can break off or refuse to resume."""

import contextlib
import hashlib
import http.server
import socket
import struct
import threading
from pathlib import Path


class FileServer:
    """Files below a folder, at `url`.

    Attributes:
        requests: (path, value of the header Range) of each request.
        breaks: how many of the next answers break off after half of what is asked for.
        busy: how many of the next answers are 503, Service Unavailable.
        resumes: whether Range is honoured.
        refused: (start of a path, status): what is answered to requests of such paths; status 0 breaks the connection.

    """

    def __init__(self, folder: Path, address: tuple) -> None:
        self.folder = folder
        self.url = f"http://127.0.0.1:{address[1]}"
        self.requests = []
        self.breaks = 0
        self.busy = 0
        self.resumes = True
        self.refused = None

    def answer(self, handler):
        path, expected = self.folder / handler.path.lstrip("/"), handler.headers.get("Range")
        self.requests.append((handler.path, expected))
        if self.busy:
            self.busy -= 1  # before the answer, after which the next request may come
            handler.send_error(503)
            return
        if not path.is_file():
            handler.send_error(404)
            return
        content, start = path.read_bytes(), 0
        tag = f'"{hashlib.sha256(content).hexdigest()[:8]}"'
        if expected and self.resumes and handler.headers.get("If-Range", tag) == tag:
            start = int(expected.removeprefix("bytes=").rstrip("-"))
        if start and start >= len(content):
            handler.send_response(416)
            handler.send_header("Content-Range", f"bytes */{len(content)}")
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        handler.send_response(206 if start else 200)
        handler.send_header("Content-Length", str(len(content) - start))
        handler.send_header("ETag", tag)
        handler.end_headers()
        rest = content[start:]
        if self.breaks:
            self.breaks -= 1
            rest = rest[: len(rest) // 2]
        handler.wfile.write(rest)


@contextlib.contextmanager
def _running(handler: type[http.server.BaseHTTPRequestHandler], folder: Path):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        files = FileServer(folder, server.server_address)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield files
        finally:
            server.shutdown()
            thread.join()


@contextlib.contextmanager
def serve(folder: Path):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):  # noqa: N802
            files.answer(self)

        def log_message(self, *args):
            pass

    with _running(Handler, folder) as files:
        yield files


@contextlib.contextmanager
def serve_listed(folder: Path):
    """Serve a folder with listings of its folders and parts of its files, as nginx does; gives a `FileServer`."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(folder))

        def do_HEAD(self):  # noqa: N802
            if not self.is_refused():
                super().do_HEAD()

        def is_refused(self):
            start, status = files.refused or ("", None)
            if status is None or not self.path.startswith(start):
                return False
            if status:
                self.send_error(status)
            else:  # ends by a reset
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.close()
            return True

        def do_GET(self):  # noqa: N802
            expected = self.headers.get("Range")
            files.requests.append((self.path, expected))
            if self.is_refused():
                return
            path = Path(self.translate_path(self.path))
            if files.busy or not path.is_file():
                if files.busy:
                    files.busy -= 1
                    self.send_error(503)
                else:
                    super().do_GET()
                return
            content = path.read_bytes()
            first, last = 0, len(content) - 1
            if expected and files.resumes:
                start, _, end = expected.removeprefix("bytes=").partition("-")
                first, last = int(start), min(int(end or last), last)
            part = content[first : last + 1]
            self.send_response(206 if expected and files.resumes else 200)
            self.send_header("Content-Length", str(len(part)))
            if expected and files.resumes:
                self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
            self.send_header("Accept-Ranges", "bytes" if files.resumes else "none")
            self.end_headers()
            if files.breaks:
                files.breaks -= 1
                part = part[: len(part) // 2]
            self.wfile.write(part)

        def log_message(self, *args):
            pass

    with _running(Handler, folder) as files:
        yield files
