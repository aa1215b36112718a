"""A call of snakemake that cannot be meant or names a damaged config file, refused in one line.

Snakemake reads the files of `--configfile` before the Snakefile, and does not say which one is damaged, or where.
The default profile (workflow/profiles/default) is read earlier still, and calls this.
"""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from cutsew.config.yaml_file import read_config
from cutsew.errors import UserError
from cutsew.owner import snakemake_program

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

TARGETS = {"all", "labels", "sweep"}
SUFFIXES = {".yaml", ".yml", ".json"}


def check_call(words: Sequence[str]) -> None:
    """End this process in one line where a call of snakemake names no sound config file.

    Args:
        words: the call, but for its first word.

    """
    try:
        refuse_swallowed_targets(words)
        for path in config_files(words):
            read_config(path)
    except UserError as error:
        sys.exit(f"cutsew: {error}")


def default_config(*folders: Path) -> str:
    """Return the config file of a call that names none, config/config.yaml of the first folder that has one.

    Ends this process in one line where it is damaged.
    """
    files = [folder / "config" / "config.yaml" for folder in folders]
    path = next((file for file in files if file.exists()), files[-1])
    try:
        read_config(path)
    except UserError as error:
        sys.exit(f"cutsew: {error}")
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
    """Tell whether a word that an option took is a target."""
    target = word in TARGETS or word.startswith("results/")
    if option in CONFIG_FILES:
        return target or (Path(word).suffix.lower() not in SUFFIXES and not Path(word).is_file())
    if option in PAIRS:
        return target and "=" not in word
    return option in RULES and word in TARGETS


def _values(words: Sequence[str]) -> list[tuple[str, int, str]]:
    """List the words that each option took: option, place, word. An option takes words until the next one."""
    found = []
    option = ""
    for place, word in enumerate(words):
        if _is_option(word):
            option, equals, value = word.partition("=")
            if equals:
                found.append((option, place, value))
                option = ""
            continue
        found.append((option, place, word))
    return found


def _is_option(word: str) -> bool:
    return word.startswith("-") and len(word) > 1
