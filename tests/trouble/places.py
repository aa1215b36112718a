"""Places of the results: a file where a folder is needed, a folder where a file is."""

from collections.abc import Callable, Iterator
from pathlib import Path

from cutsew.pipeline.plan import Plan
from cutsew.pipeline.preflight_places import IN_A_DATASET, IN_A_RUN, refuse_blocked, refuse_damaged_shards
from cutsew.pipeline.snakemake_call import check_call
from trouble.case import ACCEPTED, REFUSED, Case

FOLDERS = {"results": True, "results/demo": True, "results/demo/default": True, "results/demo/variant": True}
PLACES = {
    **FOLDERS,
    **{f"results/demo/{name}": folder for name, folder in IN_A_DATASET.items()},
    **{f"results/demo/{run}/{name}": folder for run in ("default", "variant") for name, folder in IN_A_RUN.items()},
}
"""Path -> whether it is a folder."""


def put(path: Path, *, folder: bool) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if folder:
        path.joinpath("mine").mkdir(parents=True)
    else:
        path.write_text("mine")


def case(what: str, outcome: str, says: str, make: Callable[[Path], object]) -> Case:
    def act(folder: Path) -> str:
        make(folder)
        before = sorted(map(str, folder.rglob("*")))
        try:
            settings = {"classes": ["cat", "dog"], "runs": {"variant": {"fuse.alpha": 0.5}}}
            refuse_blocked(Plan(settings, folder / "results"))
        finally:
            assert sorted(map(str, folder.rglob("*"))) == before
        return "ready"

    return Case("places", what, outcome, says, act)


def cases() -> Iterator[Case]:
    for name, folder in PLACES.items():
        here, needed = ("file", "folder") if folder else ("folder", "file")
        says = rf"/{name.replace('.', '[.]')}: is a {here} where a {needed} is needed; move it away or delete it, and rerun$"
        yield case(
            f"{name} is a {here}",
            REFUSED,
            says,
            lambda where, name=name, folder=folder: put(where / name, folder=not folder),
        )
        yield case(
            f"{name} is a {needed}",
            ACCEPTED,
            "ready",
            lambda where, name=name, folder=folder: put(where / name, folder=folder),
        )

    def two(folder: Path) -> None:
        put(folder / "results/demo/.settings", folder=False)
        put(folder / "results/demo/default/labels.csv", folder=True)

    yield case("two of them", REFUSED, r"/\.settings: is a file .*\n.*/labels\.csv: is a folder .*rerun$", two)

    def link(folder: Path) -> None:
        (folder / "results").symlink_to(folder / "nowhere")

    yield case("results is a link to nothing", REFUSED, r"/results: is a file where a folder is needed", link)
    yield case(
        "images.cache is a file", ACCEPTED, "ready", lambda f: put(f / "results/demo/images.cache", folder=False)
    )

    def notes(folder: Path) -> str:
        put(folder / ".snakemake", folder=False)
        try:
            check_call(["--directory", str(folder)])
        except SystemExit as error:
            return str(error)
        return "taken"

    says = r"^cutsew: .*/\.snakemake: is a file where a folder is needed; move it away or delete it, and rerun$"
    yield Case("places", "snakemake's notes are a file", ACCEPTED, says, notes)

    yield from damaged_shards()


def damaged_shards() -> Iterator[Case]:
    head = b"shard,images,digest,listed,placed\n"
    contents = {
        "is of an older version": b"shard,images,digest,listed\n0,9,a,b\n",
        "is empty": b"",
        "is cut off": head + b"0,9,a,",
        "is cut off between fields": head + b"0,9,a",
        "is cut off before the last field": head + b"0,9,a,b,",
        "has a field too many": head + b"0,9,a,b,c,d\n",
        "names no number": head + b"x,9,a,b,c\n",
        "is not text": b"\xff\xfe\x00",
        "is all NUL": bytes(60),
    }

    def check(folder: Path, content: bytes) -> str:
        table = folder / "results/demo/default/shards.csv"
        table.parent.mkdir(parents=True)
        table.write_bytes(content)
        refuse_damaged_shards(Plan({"classes": ["cat", "dog"]}, folder / "results"))
        return "ready"

    says = r"/shards\.csv: not a (complete )?table of shards; delete it and run the workflow with --forcerun manifest$"
    for what, content in contents.items():
        yield Case(
            "places", f"shards.csv {what}", REFUSED, says, lambda folder, content=content: check(folder, content)
        )
    whole = head + b"0,9,a,b,c\n"
    yield Case("places", "shards.csv is whole", ACCEPTED, "ready", lambda folder: check(folder, whole))
