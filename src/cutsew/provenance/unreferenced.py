"""What lies in results/ that no configured run refers to."""

import json
import os
import shutil
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cutsew.errors import UserError
from cutsew.pipeline.outputs import CACHES, FEATURES, OUTPUTS, SHARD_FILES, SWEEPS, required_stages
from cutsew.pipeline.plan import Plan
from cutsew.provenance.lineage import RECORDS, ProvenanceIndex
from cutsew.provenance.verification import OF_SHARDS
from cutsew.runtime.processes import settings_files
from cutsew.storage.manifest import SHARDS, read_shards

KNOWN = {name for names in (*OUTPUTS.values(), *CACHES.values()) for name in names}


@dataclass(frozen=True)
class UnreferencedPath:
    """A file or folder that no configured run refers to.

    Attributes:
        path: below results/.
        why: nothing refers to it.
        bytes: its size, links not followed.

    """

    path: Path
    why: str
    bytes: int


@dataclass(frozen=True)
class Unjudged:
    """A folder that is left alone, since the plans do not say whether it is still needed.

    Attributes:
        path: below results/: a dataset's folder, or a run's.
        why: what was not read.

    """

    path: Path
    why: str


def find_unreferenced(
    plans: Sequence[Plan], results: Path, read: Collection[Path] = ()
) -> tuple[list[UnreferencedPath], list[Unjudged]]:
    """List what none of the plans' runs refers to, in the folders of the plans' datasets.

    Args:
        plans: configured runs; together they say what is kept.
        results: the folder that holds a folder for each dataset; its parent is where snakemake is called.
        read: the files of settings and of sweeps that the plans come from.

    Returns:
        What can be deleted, and what cannot be judged: datasets of no plan, and runs whose records name a file of
        settings or a sweep that is there but was not read.

    """
    unreferenced: list[UnreferencedPath] = []
    datasets = sorted({run.dataset.name for plan in plans for run in plan.runs.values()})
    unjudged = [
        Unjudged(home, "no config file that was read covers this dataset")
        for home in _folders(results)
        if home.name not in datasets and any(map(_is_run, _folders(home)))
    ]
    configs = {path.resolve() for path in read}
    for home in (results / dataset for dataset in datasets if _is_folder(results / dataset)):
        referenced = _kept(plans, home.name)
        runs = [folder for folder in _folders(home) if folder.name not in (SWEEPS, FEATURES)]
        others = {folder: made_with(folder) - configs for folder in runs} if configs else {}
        for folder in runs:
            if others.get(folder):
                unjudged.append(
                    Unjudged(folder, f"made with {_from(results, min(others[folder]))}, which was not read")
                )
            elif folder.name in referenced:
                unreferenced += _of_run(folder, referenced[folder.name])
                unreferenced += _of_shards(folder, plans)
            elif _is_run(folder):
                unreferenced.append(UnreferencedPath(folder, "no configured run", size_of(folder)))
        unreferenced += _of_features(home, {*referenced, *(folder.name for folder in runs if others.get(folder))})
    return unreferenced, unjudged


def _folders(path: Path) -> list[Path]:
    """List the folders in one that are neither hidden nor links."""
    if not _is_folder(path):
        return []
    return sorted(folder for folder in path.iterdir() if _is_folder(folder) and not folder.name.startswith("."))


def made_with(run: Path) -> set[Path]:
    """Name the files of settings and of sweeps, of those that are still there, that a run's records were made with."""
    home = run.parents[2]
    commands = {
        str(record.content["command"]) for record in ProvenanceIndex().of_folder(run) if record.content.get("command")
    }
    named = {Path(home, name) for command in commands for name in settings_files(command)}
    return {path.resolve() for path in named if path.is_file()}


def _from(results: Path, path: Path) -> str:
    home = results.resolve().parent
    return str(path.relative_to(home) if path.is_relative_to(home) else path)


def delete(item: UnreferencedPath, results: Path) -> None:
    """Delete what was listed, and folders of chunk files that it leaves empty.

    Raises:
        UserError: it does not lie below results/ without a link on the way.

    """
    home = results.resolve()
    path = Path(os.path.abspath(item.path))  # noqa: PTH100
    real = path.parent.resolve() / path.name
    below = Path(os.path.relpath(path, Path(os.path.abspath(results))))  # noqa: PTH100
    if ".." in below.parts or real != home / below:
        raise UserError(f"{item.path}: does not lie in {results} without a link on the way; delete it by hand")
    if _is_folder(item.path):
        shutil.rmtree(item.path)
    else:
        item.path.unlink(missing_ok=True)
    for parent in item.path.parents:
        if not any(part.endswith(".zarr") for part in parent.parent.parts) or any(parent.iterdir()):
            break
        parent.rmdir()


def size_of(path: Path) -> int:
    """Sum the sizes of a file or of all files in a folder, links not followed."""
    if not _is_folder(path):
        return path.lstat().st_size
    return sum(Path(folder, name).lstat().st_size for folder, _, names in os.walk(path) for name in names)


def _kept(plans: Sequence[Plan], dataset: str) -> dict[str, set[str]]:
    """Return each configured run's folder and the names in it that some run refers to."""
    referenced: dict[str, set[str]] = {}
    for plan in plans:
        for run, config in plan.runs.items():
            if config.dataset.name != dataset:
                continue
            referenced.setdefault(run, set())
            for stage in required_stages(config) & OUTPUTS.keys():
                names = (*OUTPUTS[stage], *CACHES.get(stage, ()))
                referenced.setdefault(plan.source_run(run, stage), set()).update(names)
    return referenced


def _of_run(folder: Path, referenced: set[str]) -> Iterator[UnreferencedPath]:
    """List artifacts that are now read from another run's folder or that no run needs."""
    for path in sorted(folder.iterdir()):
        if path.name in KNOWN - referenced and not path.is_symlink():
            yield UnreferencedPath(path, "no configured run reads it from here", size_of(path))


def _of_features(home: Path, referenced: Iterable[str]) -> Iterator[UnreferencedPath]:
    """List cached features that the training of no configured run names in its record."""
    records = (path for run in referenced for path in _training_records(home / run))
    used = {_features_of(record) for record in records}
    for folder in sorted(filter(_is_folder, (home / FEATURES).glob("*.zarr"))):
        if folder.name not in used:
            yield UnreferencedPath(folder, "features that no configured run was trained on", size_of(folder))


def _training_records(run: Path) -> Iterator[Path]:
    yield run / "adapter.json"
    yield from run.glob("references/*/adapter.json")


def _features_of(record: Path) -> str | None:
    """Read from a training's record which features it kept or found."""
    try:
        content = json.loads(record.read_text(encoding="utf-8"))
        return str(content["facts"]["features"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _of_shards(folder: Path, plans: Sequence[Plan]) -> Iterator[UnreferencedPath]:
    """List chunk files, and their records, of passes and shards beyond those of all runs that read them here."""
    for stage, files_of in SHARD_FILES.items():
        group = folder / OUTPUTS[stage][0]
        expected: set[Path] = set()
        for plan in plans:
            for run, config in plan.runs.items():
                if config.dataset.name != folder.parent.name or stage not in required_stages(config):
                    continue
                if plan.source_run(run, stage) != folder.name:
                    continue
                shards = folder.parent / plan.source_run(run, "manifest") / SHARDS
                if not shards.is_file():
                    return
                for row in read_shards(shards):
                    expected.update(files_of(group, config, int(row["shard"])))
        for path in _chunks(group) if expected else ():
            if path not in expected:
                yield UnreferencedPath(
                    path, "beyond the passes and images of all configured runs", path.lstat().st_size
                )


def _chunks(group: Path) -> Iterator[Path]:
    """Name the chunk files of the shards' jobs below a Zarr, and their records next to it."""
    roots = [*(group / array / "c" for array in OF_SHARDS[group.name]), group.with_suffix(RECORDS)]
    for root in filter(_is_folder, roots):
        for parent, _, names in os.walk(root):
            yield from (Path(parent, name) for name in sorted(names) if not name.startswith("."))


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _is_run(folder: Path) -> bool:
    """Distinguish a run's folder from one that the user put there: it holds something that stages write."""
    return any(folder.joinpath(name).exists() for name in (*KNOWN, "logs"))
