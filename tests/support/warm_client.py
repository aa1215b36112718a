"""What stands in for `python` in the folder of `warm.Warm`; started with `-I -S`, so it imports little and is fast.

`warm_client.py SOCKET -P -m cutsew WORDS...` hands the words, its folder, environment and standard streams to the
server and ends as the forked process does; so do `warm_client.py SOCKET --warm-snakemake WORDS...` and
`warm_client.py SOCKET -m snakemake WORDS...` with snakemake's.
All else is left to the real Python.
"""

import json
import os
import socket
import sys

PACKAGE = ["-P", "-m", "cutsew"]
"""How rules call the package, after the name of the Python."""

SNAKEMAKE_COMMAND = "--warm-snakemake"
"""First word of a call of snakemake."""


def ask(address: str, program: str, words: list[str]) -> int:
    """Have the server run a command of a program; return its exit status, negative for a signal."""
    content = {"program": program, "words": words, "folder": os.getcwd(), "environment": dict(os.environ)}  # noqa: PTH109
    request = json.dumps(content).encode()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(address)
        socket.send_fds(connection, [len(request).to_bytes(8, "big")], [0, 1, 2])
        connection.sendall(request)
        answer = connection.recv(4)
    if not answer:
        raise SystemExit("warm_client.py: the server has ended")
    return int.from_bytes(answer, "big", signed=True)


def main() -> None:
    """Run a command of the package in the server, or anything else in the real Python."""
    address, *words = sys.argv[1:]
    if words[0] == SNAKEMAKE_COMMAND:
        status = ask(address, "snakemake", words[1:])
    elif words[:2] == ["-m", "snakemake"]:  # a job that a cluster's node runs
        status = ask(address, "snakemake", words[2:])
    elif words[: len(PACKAGE)] == PACKAGE:
        status = ask(address, "cutsew", words[len(PACKAGE) :])
    else:
        os.execv(sys.executable, [sys.executable, *words])
    if status < 0:
        os.kill(os.getpid(), -status)
    sys.exit(status)


if __name__ == "__main__":
    main()
