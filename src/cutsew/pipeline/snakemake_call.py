"""How Snakemake is called: on the workflow that the package carries, with words that make sense.

Snakemake reads the files of `--configfile` before the Snakefile, and does not say which one is damaged, or where. The
default profile (workflow/profiles/default) is read earlier still. It calls `check_call`, which refuses a damaged file,
and a call that cannot be meant, in one line.
"""

import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

from cutsew.config.yaml_file import read_config
from cutsew.errors import UserError, blocked, headed
from cutsew.runtime.processes import snakemake_program

CONFIG_FILES = {"--configfile", "--configfiles"}
PAIRS = {
    "--config": "name=value",
    "-C": "name=value",
    "--set-threads": "rule=threads",
    "--set-resources": "rule:resource=value",
    "--resources": "name=value",
    "--res": "name=value",
    "--default-resources": "name=value",
    "--default-res": "name=value",
}
"""Options that take every word after them, and what each of these should be."""

RULES = {"--forcerun", "-R"}
"""Options that take every word after them for a rule or a file, and to which a target that makes nothing is useless."""

WORKING_FOLDER = ("--directory", "-d")
"""Options of snakemake that name its working folder."""

TARGETS = {"all", "labels", "sweep"}
SUFFIXES = {".yaml", ".yml", ".json"}


PACKAGED = Path(__file__).parents[1] / "packaged"
"""Copies of workflow/, config/ and envs/ in a wheel; links to them in a checkout."""

SNAKEFILE = PACKAGED / "workflow" / "Snakefile"

NO_SNAKEMAKE = "snakemake is not installed; install it with pip install 'cutsew[workflow]'"


def preset(name: str) -> str:
    """Return the text of a preset, config/<name>.yaml of the package."""
    return (PACKAGED / "config" / f"{name}.yaml").read_text(encoding="utf-8")


def require_snakemake() -> None:
    """Refuse to go on without snakemake.

    Raises:
        UserError: it is not installed.

    """
    if find_spec("snakemake") is None:
        raise UserError(NO_SNAKEMAKE)


def exec_snakemake(words: Sequence[str], configfile: Path) -> NoReturn:
    """Replace this process by snakemake on the package's own workflow, in the working folder.

    Args:
        words: targets and options of snakemake. A profile that the package has and the working folder has not is the
            package's.
        configfile: the settings, unless `words` name others.

    Raises:
        UserError: snakemake is not installed, or `words` name another Snakefile.

    """
    require_snakemake()
    command = [sys.executable, "-P", "-m", "snakemake", *packaged_call(words, configfile)]
    sys.stdout.flush()
    os.execv(command[0], command)  # noqa: S606  # no shell


def packaged_call(words: Sequence[str], configfile: Path) -> list[str]:
    """Return snakemake's words for the package's own workflow; otherwise as `exec_snakemake`."""
    result = []
    options = {option for option, *_ in _values(words)}
    if options & {"--snakefile", "-s"}:
        raise UserError("--snakefile: cutsew run has its own; call snakemake itself to run another")
    places = {place: (option, word) for option, place, word in _values(words)}
    for place, word in enumerate(words):
        option, value = places.get(place, ("", ""))
        profile = PACKAGED / "workflow" / "profiles" / value
        if option == "--profile" and value and profile.is_dir() and not Path(value).exists():
            word = word.removesuffix(value) + str(profile)  # noqa: PLW2901
        result.append(word)
    result += ["--snakefile", str(SNAKEFILE)]
    return result if options & CONFIG_FILES else [*result, "--configfile", str(configfile)]


@contextmanager
def exit_in_one_line() -> Iterator[None]:
    """End this process with status 1 and the lines of a `UserError`, without a traceback."""
    try:
        yield
    except UserError as error:
        sys.exit(headed(str(error)))


def command_of_jobs(*, deployed: bool) -> str:
    """Return how jobs call the package, with braces doubled for Snakemake's formatting.

    Args:
        deployed: jobs run in the environment of their rule or in a container, whose `cutsew` is on `PATH`. Otherwise
            they run the package of the Python that runs Snakemake, whatever is on `PATH`; `-P` keeps a `random.py` of
            the working folder from hiding the module of that name.

    """
    call = "cutsew" if deployed else f"{shlex.quote(sys.executable)} -P -m cutsew"
    return call.replace("{", "{{").replace("}", "}}")


def require_container(apptainer: bool, container: str | None) -> None:
    """Refuse jobs in containers where no image is named: they would run what happens to be called `cutsew`.

    Raises:
        UserError: with the setting.

    """
    if apptainer and container is None:
        raise UserError(
            "compute.container: not set, and --sdm apptainer runs jobs in an image; name one built from envs/Dockerfile"
        )


def check_call(words: Sequence[str]) -> None:
    """End this process in one line where a call of snakemake names no sound config file, or cannot keep its notes.

    Args:
        words: the call, but for its first word.

    """
    with exit_in_one_line():
        refuse_swallowed_targets(words)
        for path in config_files(words):
            read_config(path)
        folder = next((word for option, _, word in _values(words) if option in WORKING_FOLDER), ".")
        if line := blocked(Path(folder, ".snakemake"), folder=True):
            raise UserError(line)


def default_config(*folders: Path) -> str:
    """Return the config file of a call that names none, config/config.yaml of the first folder that has one.

    Ends this process in one line where it is damaged.
    """
    files = [folder / "config" / "config.yaml" for folder in folders]
    return checked_config(next((file for file in files if file.exists()), files[-1]))


def checked_config(path: str | Path) -> str:
    """Return the path of a config file, for `configfile:`; ends this process in one line where it is damaged."""
    with exit_in_one_line():
        read_config(Path(path))
    return str(path)


def config_files(words: Sequence[str]) -> list[Path]:
    """Name the config files of a call."""
    return [Path(word) for option, _, word in _values(words) if option in CONFIG_FILES]


def refuse_swallowed_targets(words: Sequence[str]) -> None:
    """Refuse a target, or another stray word, after an option that takes all words which follow it.

    Raises:
        UserError: with the call as it works.

    """
    for option, place, word in _values(words):
        if _is_option(words[place - 1]) or not _swallowed(option, word):
            if option in PAIRS and "=" not in word:
                raise UserError(f"{option}: {word!r} is not {PAIRS[option]}; write it so")
            continue
        end = next((i for i in range(place, len(words)) if _is_option(words[i])), len(words))
        moved = [snakemake_program(), *words[place:end], *words[:place], *words[end:]]
        raise UserError(
            f"{option} takes every word after it, {word} too; name targets before the options: {shlex.join(moved)}"
        )


def _swallowed(option: str, word: str) -> bool:
    """Check whether a word that an option took is a target."""
    target = word in TARGETS or word.startswith("results/")
    if option in CONFIG_FILES:
        return target or (Path(word).suffix.lower() not in SUFFIXES and not Path(word).is_file())
    if option in PAIRS:
        return target and "=" not in word
    return option in RULES and word in TARGETS


def _values(words: Sequence[str]) -> list[tuple[str, int, str]]:
    """List the words that each option took: option, place, word. An option takes words until the next one."""
    values = []
    option = ""
    for place, word in enumerate(words):
        if _is_option(word):
            option, equals, value = word.partition("=")
            if equals:
                values.append((option, place, value))
                option = ""
            continue
        values.append((option, place, word))
    return values


def _is_option(word: str) -> bool:
    return word.startswith("-") and len(word) > 1
