"""Tool init: a config file for a folder of images."""

import os
import re
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import Annotated, Any

import typer
import yaml

from cutsew.config.loading import DEFAULT, load
from cutsew.config.yaml_file import read_config
from cutsew.errors import UserError, some
from cutsew.pipeline.network_work import teacher_side
from cutsew.pipeline.outputs import required_stages
from cutsew.pipeline.plan import Plan
from cutsew.pipeline.run_estimate import RunEstimate, estimate_run
from cutsew.pipeline.snakemake_call import PACKAGED, preset
from cutsew.storage.atomic import write_text

CONFIGFILE = Path("config.yaml")

PhotosArgument = Annotated[Path | None, typer.Argument(metavar="PHOTOS", help="Folder of the images, any depth.")]
ClassesOption = Annotated[
    str | None, typer.Option(help="What to look for: names separated by commas, or a text file with one name per line.")
]
OfflineOption = Annotated[
    bool, typer.Option("--offline", help="Use models whose weights come as Python packages: no model hub, no GPU.")
]
ConfigfileOption = Annotated[Path, typer.Option(help="The config file.")]


def init(
    photos: PhotosArgument = None,
    *,
    classes: ClassesOption = None,
    offline: OfflineOption = False,
    configfile: ConfigfileOption = CONFIGFILE,
) -> None:
    """Look at a folder of images and at this machine, and write a commented config file with an estimate of the cost.

    The file is a copy of the preset folder.yaml, or of folder-offline.yaml with --offline. If the folder holds tars or
    Parquet files instead of images, the file says so. A CSV of true labels in the folder or next to it is named in it,
    for evaluation only. An existing file is never overwritten.
    """
    if photos is None:
        raise UserError("PHOTOS: missing; name the folder of your images: cutsew init PHOTOS --classes cat,dog,person")
    write_config(photos, classes, configfile, offline=offline)
    typer.echo(f"wrote {configfile}; edit what you like, then: cutsew run{_option(configfile)}")


def prepare_config(photos: Path, classes: str | Sequence[str] | None, configfile: Path, *, offline: bool) -> bool:
    """Write a config file for a folder of images, or check that the one that exists is for the same run.

    Args:
        photos: as `write_config`.
        classes: as `write_config`; None for those of an existing config file.
        configfile: as `write_config`.
        offline: as `write_config`.

    Returns:
        Whether the file was written.

    Raises:
        UserError: as `write_config`, or the existing file is invalid, or for other images, classes or models.

    """
    if not configfile.exists():
        write_config(photos, classes, configfile, offline=offline)
        return True
    config = load(read_config(configfile))
    root = config.dataset.location
    if root is None:
        different = f"dataset.kind {config.dataset.kind}, not {photos}"
    elif os.path.realpath(root) != os.path.realpath(photos):
        different = f"dataset.root {root}, not {photos}"
    elif classes is not None and (others := _different(config.classes, _class_names(classes))):
        different = f"other classes ({others})"
    elif offline and config.teacher.kind == "open_clip":
        different = f"teacher.open_clip.model {config.teacher.open_clip.model}, not the models of --offline"
    else:
        return False
    raise UserError(
        f"{configfile}: exists with {different}; type cutsew run{_option(configfile)} to use it as it is, "
        "or write another file with --configfile NAME"
    )


def write_config(photos: Path, classes: str | Sequence[str] | None, configfile: Path, *, offline: bool) -> None:
    """Write a config file for a folder of images, and print what was seen.

    Args:
        photos: the folder.
        classes: names of what to look for, or the text of --classes (see `read_classes`).
        configfile: to be written.
        offline: take models whose weights come as Python packages.

    Raises:
        UserError: the config file exists, the folder is missing or without images, no classes are given, a setting
            made of them is not valid, or a package is missing.

    """
    if configfile.exists() or configfile.is_symlink():
        raise UserError(
            f"{configfile}: exists already and is not overwritten; run it with cutsew run{_option(configfile)}, or "
            "name another with --configfile"
        )
    names = _class_names(classes)
    text = preset("folder-offline" if offline else "folder")
    raw = yaml.safe_load(text)
    raw["classes"] = names
    raw["dataset"] |= {"name": dataset_name(photos), "root": str(photos)}
    plan = Plan(raw)
    config = plan.runs[DEFAULT]

    from cutsew.pipeline import survey  # noqa: PLC0415  # torch, after what can be refused at once

    seen = survey.survey_folder(photos, teacher_side(config))
    raw["dataset"] |= seen.dataset
    load(raw)
    raw["dataset"]["truth"] = _text(survey.find_truth(photos, seen.ids, names))
    machine = survey.survey_machine(ask_hub=not offline)
    speed, timed = survey.measure_speed(config, seen, machine)
    shards = -(-len(seen.ids) // config.dataset.shard_size)
    jobs = len(required_stages(config)) + config.cut.blocks * shards
    estimate = estimate_run(config, len(seen.ids), jobs, speed)
    how = "measured on a few images" if timed else "reading was measured, the networks' speed assumed"
    lines = [
        f"images: {photos}: {survey.folder_in_words(seen)}",
        f"machine: {survey.machine_in_words(machine)}",
        f"estimate: {_in_words(estimate, survey)}; {how}",
    ]
    if raw["dataset"]["truth"]:
        lines.insert(1, f"true labels: {raw['dataset']['truth']}, for evaluation only (dataset.truth)")
    configfile.parent.mkdir(parents=True, exist_ok=True)
    write_text(configfile, _filled(text, raw, lines))
    read_config(configfile)
    for line in lines:
        typer.echo(line)
    if seen.unreadable:
        reasons = some([f"{PurePath(error.path).name}: {error.reason}" for error in seen.unreadable], 2)
        sample = len(seen.unreadable) + len(seen.sides)
        typer.echo(
            f"warning: {len(seen.unreadable)} of {sample} sampled images cannot be read ({reasons}); they are skipped"
        )
    if machine.hub is False:
        typer.echo("warning: the weights come from a model hub, which does not answer here; --offline needs none")
    if estimate.bytes + estimate.weights * 10**6 > machine.free:
        typer.echo("warning: the disk of this folder may be too small; run in another one")


def _different(there: Sequence[str], given: Sequence[str]) -> str:
    """Say which classes of a config file differ from those of the command line, whose order does not matter."""
    only_there, only_given = ([name for name in a if name not in b] for a, b in ((there, given), (given, there)))
    parts = [f"without {some(only_given)}"] if only_given else []
    return "; ".join(parts + ([f"with {some(only_there)}"] if only_there else []))


def _class_names(classes: str | Sequence[str] | None) -> list[str]:
    return read_classes(classes) if classes is None or isinstance(classes, str) else list(classes)


def read_classes(given: str | None) -> list[str]:
    """Read class names: separated by commas, or from a text file with one name per line, in which # starts a comment.

    Raises:
        UserError: there are none, or the file cannot be read.

    """
    hint = "name what to look for, as in --classes cat,dog,person, or a text file with one name per line"
    if given is None:
        raise UserError(f"--classes: missing; {hint}")
    path = Path(given)
    if path.is_file() or (path.suffix.lower() == ".txt" and "," not in given):
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError):
            raise UserError(f"--classes: {path} cannot be read as UTF-8 text; {hint}") from None
        names = [line.partition("#")[0] for line in lines]
    else:
        names = given.split(",")
    chosen = list(filter(None, (name.strip() for name in names)))
    if not chosen:
        raise UserError(f"--classes: {given!r} names none; {hint}")
    return chosen


def dataset_name(photos: Path) -> str:
    """Return a name for the results of a folder: its own, in the characters that `dataset.name` may have."""
    return re.sub(r"[^A-Za-z0-9._=+-]+", "-", photos.resolve().name).strip("-._=+") or "images"


def _filled(text: str, raw: dict[str, Any], lines: list[str]) -> str:
    """Fill a preset's text with the classes and the dataset, keep its other comments, and start it with `lines`."""
    body = re.sub(r"\A(#.*\n)+", "", text)
    dataset = raw["dataset"]
    classes = yaml.safe_dump({"classes": raw["classes"]}, default_flow_style=None, allow_unicode=True, width=110)
    kind = [f"  {key}: {_inline(dataset[key])}\n" for key in ("kind", "files") if key in dataset]
    replaced = [
        (r"^classes: \[[^\]]*\].*\n", classes),
        (r"^  kind: folder\n", "".join(kind)),
        (r"^  name: .*\n", f"  name: {_inline(dataset['name'])}\n"),
        (r"^  root: .*\n", f"  root: {_inline(dataset['root'])}\n"),
        (r"^  truth: null", f"  truth: {_inline(dataset['truth'])}"),
    ]
    for pattern, new in replaced:
        body, count = re.subn(pattern, lambda _, new=new: new, body, count=1, flags=re.MULTILINE)  # type: ignore[misc]
        if count != 1:
            raise ValueError(f"no {pattern} in the preset")
    body = body.replace("results/mine/", f"results/{dataset['name']}/")
    schema = PACKAGED / "workflow" / "schemas" / "config.schema.json"
    head = [f"# yaml-language-server: $schema={schema}"]  # editors complete and check the file
    head += ["# Written by cutsew init; run it with cutsew run. Every setting, with its meaning and default:"]
    head += [f"#   {PACKAGED / 'config' / 'default.yaml'}", *(f"# {one}" for one in lines)]
    return "\n".join(head) + "\n" + body


def _in_words(estimate: RunEstimate, survey: Any) -> str:  # noqa: ANN401
    weights = (
        f"; up to {survey.size_in_words(estimate.weights * 1e6)} of weights to download" if estimate.weights else ""
    )
    return f"about {survey.time_in_words(estimate.seconds)}, {survey.size_in_words(estimate.bytes)} on disk{weights}"


def _inline(value: object) -> str:
    return yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10**6).removesuffix("...\n").strip()


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def _option(configfile: Path) -> str:
    return "" if configfile == CONFIGFILE else f" --configfile {configfile}"
