"""What this process may use of its machine: cores, memory and installed packages."""

import os
import re
from importlib import metadata
from pathlib import Path


def usable_cores() -> int:
    """Count the cores that this process may use: on a shared node those of its allocation."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def usable_memory_mb() -> int:
    """Return the memory that this process may use, in MB: the machine's with its swap space, or a control group's."""
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") + _swap(Path("/proc/meminfo"))]
    limits += [int(text) for text in _limits(Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")) if text.isdigit()]
    return min(limits) // 10**6


def _swap(meminfo: Path) -> int:
    """Read the bytes of swap space; 0 where that is not known."""
    try:
        match = re.search(r"^SwapTotal:\s+(\d+) kB", meminfo.read_text(encoding="utf-8"), flags=re.MULTILINE)
    except OSError:
        return 0
    return int(match[1]) * 1024 if match else 0


def _limits(groups: Path, mounted: Path) -> list[str]:
    """Read the limits of the control groups (version 2, or 1) that a process is in, and of the groups around them."""
    try:
        lines = groups.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    limits = []
    for line in lines:
        _, kinds, path = line.split(":", 2)
        if kinds not in ("", "memory"):
            continue
        top, name = (mounted / "memory", "memory.limit_in_bytes") if kinds else (mounted, "memory.max")
        inner = top / path.lstrip("/")
        for folder in (inner, *(parent for parent in inner.parents if parent.is_relative_to(top))):
            try:
                limits.append((folder / name).read_text(encoding="utf-8").strip())
            except OSError:
                continue
    return limits


def package_version(package: str) -> str | None:
    """Return the version of an installed package; None where it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
