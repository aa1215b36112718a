"""Commands of the package and snakemake without their start: a process that has imported everything forks each.

A small job spends most of its time importing torch, open_clip and pandas, and a dry run importing snakemake. Tests that
are about what they do, not about how a process starts, run them through this; a snakemake that a test stops is started
as a user's. Linux only; elsewhere the real programs are used.
"""

import atexit
import gc
import importlib
import json
import os
import pkgutil
import runpy
import selectors
import shlex
import socket
import subprocess
import sys
import threading
import traceback
from pathlib import Path
from typing import NoReturn

from warm_client import PACKAGE, SNAKEMAKE_COMMAND

CLIENT = Path(__file__).with_name("warm_client.py")
SNAKEMAKE = """import sys
from snakemake.cli import main

sys.executable = {python!r}  # rules call the package with it
sys.exit(main())
"""


class Warm:
    """A folder of programs, whose commands of the package a server runs.

    The server forks `python`, `cutsew` and `warm-snakemake`; `snakemake` is a process of its own whose jobs are forked.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.server: subprocess.Popen | None = None

    @property
    def binaries(self) -> Path:
        """The folder; the server is started at the first call."""
        if not hasattr(os, "pidfd_open"):
            return Path(sys.executable).parent
        if self.server is None:
            self._start()
        return self.folder

    def _start(self) -> None:
        address, program = str(self.folder / "socket"), self.folder / "snakemake.py"
        client = f"exec {shlex.join([sys.executable, '-I', '-S', str(CLIENT), address])}"
        program.write_text(SNAKEMAKE.format(python=str(self.folder / "python")))
        scripts = {
            "python": f'{client} "$@"',
            "cutsew": f'{client} {shlex.join(PACKAGE)} "$@"',
            "warm-snakemake": f'{client} {SNAKEMAKE_COMMAND} "$@"',
            "snakemake": f'exec {shlex.join([sys.executable, "-P", str(program)])} "$@"',
        }
        for name, line in scripts.items():
            (self.folder / name).write_text(f"#!/bin/sh\n{line}\n")
            (self.folder / name).chmod(0o755)
        self.server = subprocess.Popen(
            [sys.executable, __file__, address],
            env={**os.environ, "OMP_NUM_THREADS": "1"},  # a process with threads must not be forked
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert self.server.stdout.readline() == b"ready\n"

    def close(self) -> None:
        """End the server."""
        if self.server is not None:
            self.server.stdin.close()
            self.server.wait()


def preload() -> None:
    """Import what the commands and snakemake import."""
    import cutsew.commands
    import cutsew.stages
    from cutsew.runtime.lazy_imports import import_torchvision

    import_torchvision()
    for package in (cutsew.stages, cutsew.commands):
        for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            importlib.import_module(module.name)
    for name in LAZY:
        importlib.import_module(name)
    gc.freeze()


LAZY = (
    "matplotlib.backends.backend_agg",
    "matplotlib.backends.backend_svg",
    "open_clip",
    "pandas",
    "pyarrow.parquet",
    "snakemake.api",
    "snakemake.cli",
    "snakemake.dag",
    "snakemake.workflow",
    "timm",
    "zarr",
)
"""What stages import only where they need it, and snakemake."""


def become(connection: socket.socket, python: Path) -> NoReturn:
    """Read a request and run its command in this process, as if it had been started as `python`.

    The process ends as one of multiprocessing does: tearing down all that was imported would take most of its time.
    """
    header, streams, *_ = socket.recv_fds(connection, 8, 3)
    with connection.makefile("rb") as file:
        request = json.loads(file.read(int.from_bytes(header, "big")))
    connection.close()
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    customize()
    sys.argv, sys.executable = [request["program"], *request["words"]], str(python)
    status = 0
    try:
        if request["program"] == "snakemake":
            sys.exit(importlib.import_module("snakemake.cli").main())
        runpy.run_module("cutsew", run_name="__main__", alter_sys=True)
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr)
    except BaseException:  # noqa: BLE001
        traceback.print_exc()
        status = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def customize() -> None:
    """Run the first `sitecustomize.py` on PYTHONPATH, as Python does at its start."""
    for folder in filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)):
        if Path(folder, "sitecustomize.py").exists():
            runpy.run_path(str(Path(folder, "sitecustomize.py")))
            return


def serve(address: str) -> None:
    """Fork a process for each request, until standard input is closed."""
    preload()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen()
    selector = selectors.DefaultSelector()
    selector.register(sys.stdin, selectors.EVENT_READ)
    selector.register(listener, selectors.EVENT_READ)
    print("ready", flush=True)
    while True:
        for key, _ in selector.select():
            if key.fileobj is sys.stdin:
                return
            if key.fileobj is listener:
                connection, _ = listener.accept()
                number = os.fork()
                if number == 0:
                    selector.close()
                    listener.close()
                    become(connection, Path(address).with_name("python"))
                selector.register(os.pidfd_open(number), selectors.EVENT_READ, (number, connection))
            else:
                number, connection = key.data
                selector.unregister(key.fd)
                os.close(key.fd)
                status = os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])
                with connection:
                    connection.sendall(status.to_bytes(4, "big", signed=True))


if __name__ == "__main__":
    serve(sys.argv[1])
