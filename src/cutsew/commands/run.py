"""Tool run: the workflow that the package carries, in the working folder."""

from pathlib import Path

import typer

from cutsew.commands.init import (
    CONFIGFILE,
    ClassesOption,
    ConfigfileOption,
    OfflineOption,
    PhotosArgument,
    prepare_config,
)
from cutsew.errors import UserError
from cutsew.pipeline.snakemake_call import CONFIG_FILES, exec_snakemake, require_snakemake
from cutsew.runtime.processes import DEFAULT_CONFIGFILE


def run(
    context: typer.Context,
    photos: PhotosArgument = None,
    *,
    classes: ClassesOption = None,
    offline: OfflineOption = False,
    configfile: ConfigfileOption = CONFIGFILE,
) -> None:
    """Run the workflow with config.yaml of this folder; with PHOTOS and --classes, write that file first (cutsew init).

    Options after -- go to snakemake: cutsew run -- --cores 4, cutsew run -- -n, cutsew run -- --profile slurm. Results
    are in results/<dataset>/default: labels.csv, report.html. The same command, or cutsew run alone, resumes a run that
    was interrupted.
    """
    require_snakemake()
    words: list[str] = context.meta.get("words", [])
    if photos is not None:
        if prepare_config(photos, classes, configfile, offline=offline):
            typer.echo(f"wrote {configfile}; results in results/, cutsew run resumes")
        else:
            typer.echo(f"{configfile} is for these images; resuming with its settings")
    elif classes is not None or offline:
        raise UserError(
            "PHOTOS: missing; --classes and --offline belong to a folder: cutsew run PHOTOS --classes cat,dog"
        )
    exec_snakemake(words, _existing(configfile, words))


def _existing(configfile: Path, words: list[str]) -> Path:
    """Return the config file to run: the one that is named, else config/config.yaml where there is no config.yaml.

    Raises:
        UserError: there is none.

    """
    if configfile.is_file() or CONFIG_FILES & {word.partition("=")[0] for word in words}:
        return configfile
    if configfile == CONFIGFILE and Path(DEFAULT_CONFIGFILE).is_file():
        return Path(DEFAULT_CONFIGFILE)
    raise UserError(f"{configfile}: no such config file; write one with cutsew init PHOTOS --classes cat,dog,person")
