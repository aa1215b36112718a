"""What ends in a single line for the user."""

import errno
import os
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

MOST_LINES = 10
"""Errors that are printed of many."""


class UserError(Exception):
    """Bad input or a bad setting. The message is one line: it names the file or dotted setting and says what to do.

    The command line prints it without a traceback and exits with status 1. Several wrong settings are a line each.

    Attributes:
        lines: one per error, all of them; as text, `MOST_LINES` of them and how many more there are.

    """

    def __init__(self, *messages: str) -> None:
        self.lines = tuple(map(printable, messages))
        super().__init__(*self.lines)

    def __str__(self) -> str:
        rest = len(self.lines) - MOST_LINES
        more = [f"and {counted(rest, 'more error', 'more errors')}; correct these and try again"] if rest > 0 else []
        return "\n".join([*self.lines[:MOST_LINES], *more])

    def below(self, heading: str) -> "UserError":
        """Return the same errors, each line headed by where it comes from."""
        return UserError(*(f"{heading}{line}" for line in self.lines))


def printable(text: str) -> str:
    r"""Escape what would break a line or steer a terminal: names of files and classes are other people's.

    Line breaks, other control characters and bytes that are not UTF-8 come out as `\n`, `\x1b`, `\udcff`.
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def headed(text: str) -> str:
    """Head each line of an error with the program's name."""
    return "\n".join(f"cutsew: {line}" for line in text.splitlines())


def some(names: Sequence[str], most: int = 5) -> str:
    """List the first names of many, for a message."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def lacks_classes(location: str, absent: Sequence[str], classes: int, others: Sequence[str]) -> UserError:
    """Word that a file does not name the classes.

    Args:
        location: setting and file.
        absent: classes that it does not name.
        classes: how many there are.
        others: what it names that is no class.

    """
    which = "none" if len(absent) == classes else "not all"
    return UserError(
        f"classes: {location} names {which} of the {classes:,} classes, and not {some(absent)}; correct the spelling "
        f"in classes or there (its other names: {some(others) or 'none'})"
    )


MANY_NAMES = 10_000
"""Names above which none is suggested for a mistyped one: comparing them would take seconds."""


def counted(count: int, one: str, many: str) -> str:
    """Write a number with its noun: `1 file`, `1,200 files`."""
    return f"{count:,} {one if count == 1 else many}"


def did_you_mean(name: str, names: Sequence[str], most: int = 3) -> str:
    """Suggest names for a mistyped one, as a question; empty where none resembles it."""
    similar = get_close_matches(name, names, n=most) if len(names) <= MANY_NAMES else []
    return f"did you mean {' or '.join(similar)}?" if similar else ""


def blocked(path: Path, *, folder: bool) -> str | None:
    """Word that a file stands where a folder is needed, or a folder where a file is; None where neither does.

    Args:
        path: what is to be written.
        folder: whether it is a folder.

    """
    for place in (*reversed(path.parents), *([path] if folder else [])):
        if os.path.lexists(place) and not place.is_dir():
            return f"{place}: is a file where a folder is needed; move it away or delete it, and rerun"
    if not folder and path.is_dir():
        return f"{path}: is a folder where a file is needed; move it away or delete it, and rerun"
    return None


def in_the_way(error: OSError) -> str | None:
    """Word what stands in the way of a write or a read that failed for it; None for other errors."""
    name = error.filename if error.filename2 is None else error.filename2
    if error.errno not in (errno.ENOTDIR, errno.EISDIR, errno.EEXIST) or name is None:
        return None
    return blocked(Path(_text(name)), folder=error.errno != errno.EISDIR)


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, cut to 200 characters, or its kind where it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def missing_package(needed_by: str, name: str, extra: str) -> UserError:
    """Word that a package of one of cutsew's extras is not installed; `needed_by` names the setting."""
    return UserError(f"{needed_by} needs the package {name}; run: pip install 'cutsew[{extra}]'")


def in_one_line(error: Exception) -> str | None:
    """Word an error that is not a fault of the program: bad input, a lost file, a machine without memory left.

    Returns:
        One line (several wrong settings: a line each), None for all other errors, whose traceback is more useful.

    """
    if isinstance(error, UserError):
        return str(error)
    if (isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE)) or MANY_FILES in str(error):
        return "too many files are open at once; type ulimit -n 1024, or open a new shell, and rerun"
    if isinstance(error, OSError) and (line := in_the_way(error)):
        return printable(line)
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return printable(f"{_text(error.filename)}: {error.strerror}; fix this and rerun")
    return _memory_in_one_line(error)


def _memory_in_one_line(error: Exception) -> str | None:
    if out_of_gpu_memory(error):
        return (
            "the GPU's memory does not suffice; set compute.batch_size lower, or end other processes on this GPU "
            "(nvidia-smi lists them), and run again"
        )
    if isinstance(error, MemoryError) or any(words in str(error) for words in NO_MEMORY):
        return "this machine's memory does not suffice; run again with more, or set compute.batch_size lower"
    if LOST_WORKER in str(error):
        return (
            "a process that reads images was killed, most often because the machine's memory did not suffice; "
            "run again, with fewer --cores or more memory"
        )
    return None


def out_of_gpu_memory(error: BaseException) -> bool:
    """Check whether an error means that a GPU is out of memory: torch's, cuBLAS's, cuDNN's or the driver's."""
    return isinstance(error, RuntimeError) and any(words in str(error) for words in NO_GPU_MEMORY)


NO_GPU_MEMORY = (
    "CUDA out of memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "HIP out of memory",
    "MPS backend out of memory",
)
"""What torch, cuBLAS, cuDNN and the driver say where a GPU's memory does not suffice."""

MANY_FILES = "Too many open files"
"""What torch's DataLoader and other libraries say where a process may open no more files."""

NO_MEMORY = ("DefaultCPUAllocator: can't allocate memory", "DefaultCPUAllocator: not enough memory", "std::bad_alloc")
"""What torch and its libraries say where the machine's memory does not suffice."""

LOST_WORKER = "DataLoader worker (pid"
"""What torch says where a worker process of its DataLoader ended before its work."""


def _text(name: str | bytes | int) -> str:
    return name.decode("utf-8", "surrogateescape") if isinstance(name, bytes) else str(name)


def no_patches(model: str, tower: str) -> str:
    """Format the reason why TagCLIP does not support a teacher."""
    return (
        f"score.rule: tagclip reads the patches of a CLIP vision transformer, and teacher.open_clip.model {model} has "
        f"{tower}; name one such as ViT-B-16, or set score.rule: softmax"
    )
