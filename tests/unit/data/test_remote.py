"""What a web server's refusals come out as: never as files that are not there."""

import pytest
from file_server import serve_listed

from cutsew.data import remote
from cutsew.errors import UserError

ANSWERS = [  # status, or 0 for a connection that is reset; what the line says
    (500, "the server answered 500"),
    (429, "the server answered 429"),
    (403, "access is denied"),
    (401, "access is denied"),
    (0, r"Client\w+Error|ServerDisconnected|ConnectionFailed"),
]


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch):
    monkeypatch.setattr(remote, "PAUSES", (0, 0))
    remote._size.cache_clear()


@pytest.fixture
def server(tmp_path):
    for name in ("1.bin", "sub/2.bin"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"0123456789")
    with serve_listed(tmp_path) as running:
        yield running


@pytest.mark.parametrize(("status", "says"), ANSWERS)
def test_a_file_that_is_refused_is_not_a_file_that_is_not_there(server, status, says):
    server.refused = ("/1.bin", status)
    url = f"{server.url}/1.bin"
    for action in (
        lambda: remote.open_file(url, ahead=True),
        lambda: remote.read_range(url, 2, 3),
        lambda: remote.read_file(url),
    ):
        with pytest.raises(UserError, match=f"1.bin: .*({says})"):
            action()
    assert remote.stat_line(url).endswith("missing")  # which Snakemake asks for; the job says why
    server.refused = None
    assert remote.read_range(url, 2, 3) == b"234" and remote.read_file(url) == b"0123456789"


def test_a_file_that_is_not_there(server):
    url = f"{server.url}/3.bin"
    for action in (lambda: remote.open_file(url, ahead=True), lambda: remote.read_range(url, 2, 3)):
        with pytest.raises(FileNotFoundError):
            action()
    assert remote.stat_line(url).endswith("missing")


@pytest.mark.parametrize(("status", "says"), ANSWERS)
@pytest.mark.parametrize("pattern", [None, "**/*.bin"])
def test_a_folder_that_cannot_be_listed_is_not_passed_over(server, status, says, pattern):
    assert len(remote.find_files(server.url, pattern)) == 2
    remote.filesystem(server.url)[0].invalidate_cache()
    server.refused = ("/sub", status)
    with pytest.raises(UserError, match=says):
        remote.find_files(server.url, pattern)


def test_a_server_that_is_not_there():
    with pytest.raises(UserError, match="http://127.0.0.1:9/x: cannot be read .*check the connection"):
        remote.find_files("http://127.0.0.1:9/x")


def test_a_file_system_that_connects_at_once():
    with pytest.raises(UserError, match="ftp://127.0.0.1:9/x: cannot be opened"):
        remote.find_files("ftp://127.0.0.1:9/x")
