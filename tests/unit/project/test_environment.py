"""The conda environment of the rules and pyproject.toml name the same packages; the suite is collected as one."""

import tomllib
from collections import Counter
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[3]


def test_the_environment_installs_the_package_with_extras_that_exist():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    environment = yaml.safe_load((ROOT / "envs" / "cutsew.yaml").read_text())
    (pip,) = [entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict)]
    (package,) = pip
    path, extras = package.rstrip("]").split("[")
    # Snakemake copies the file there, and pip takes paths from where it stands
    assert (ROOT / ".snakemake" / "conda" / path).resolve() == ROOT
    assert set(extras.split(",")) <= set(project["optional-dependencies"])
    assert f"python {project['requires-python']}" in environment["dependencies"]


def test_every_dependency_is_pinned():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pins = {line.split("==")[0].lower().replace("_", "-") for line in (ROOT / "constraints.txt").read_text().split()}
    expected = [
        *project["dependencies"],
        *(name for extra in project["optional-dependencies"].values() for name in extra),
    ]
    names = {name.split(">")[0].split("[")[0].strip().lower().replace("_", "-") for name in expected}
    assert names <= pins


def test_no_two_files_of_tests_have_one_name():
    """Folders without __init__.py share module names: pytest could not collect both files in one run."""
    files = Counter(path.name for path in (ROOT / "tests").rglob("test_*.py"))
    assert [name for name, count in files.items() if count > 1] == []


def test_no_two_modules_have_one_name_but_for_the_stage_or_command_that_a_module_serves():
    """A stage's and a command's module is named as it is called; all others are found by one name."""
    package = ROOT / "src" / "cutsew"
    names = Counter(
        path.stem
        for path in package.rglob("*.py")
        if path.stem != "__init__" and path.parent.name not in ("stages", "commands")
    )
    assert [name for name, count in names.items() if count > 1] == []


def test_the_contract_of_imports_names_every_package():
    """Fails where a package is added without saying who may import it; `lint-imports` checks the imports themselves."""
    package = ROOT / "src" / "cutsew"
    packages = {path.parent.name for path in package.glob("*/__init__.py")}
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (layers,) = [contract["layers"] for contract in contracts if contract["type"] == "layers"]
    assert {name.strip() for layer in layers for name in layer.split("|")} == packages | {"api", "cli", "errors"}
