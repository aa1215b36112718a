"""What is shipped and installed: pins with digests, licences, one version, wheels made byte for byte again."""

import importlib.util
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[3]
LICENCES = ROOT / "docs" / "reference" / "licences.md"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def normal(name):
    return re.sub(r"[-_.]+", "-", name.lower())


def pins(path):
    result = re.findall(r"^([A-Za-z0-9][\w.-]*)==([\w.]+)", (ROOT / path).read_text(), flags=re.MULTILINE)
    return {normal(name): version for name, version in result}


def test_the_lock_holds_every_pin_but_torch_and_a_digest_of_each():
    locked, pinned = pins("requirements.lock"), pins("constraints.txt")
    pinned.pop("torch")
    assert locked == pinned, "write it anew: make lock"
    for entry in re.split(r"\n(?=\S)", (ROOT / "requirements.lock").read_text()):
        assert entry.startswith("#") or re.search(r"--hash=sha256:[0-9a-f]{64}", entry), entry


def test_the_licences_of_everything_pinned_are_listed():
    listed = set(re.findall(r"^\| ([\w.-]+) \|", LICENCES.read_text(), flags=re.MULTILINE)) - {"package"}
    assert {normal(name) for name in listed} == pins("constraints.txt").keys()
    spec = importlib.util.spec_from_file_location("licences", ROOT / "tools" / "licences.py")
    writer = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(writer)
    assert writer.page() == LICENCES.read_text(), "write it anew: python tools/licences.py"


def test_one_version():
    changelog = (ROOT / "CHANGELOG.md").read_text()
    assert re.search(r"^## \[([\d.]+)\]", changelog, flags=re.MULTILINE)[1] == PROJECT["version"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation.get("version", PROJECT["version"]) == PROJECT["version"]
    named = re.compile(rf"(?<![\d.]){re.escape(PROJECT['version'])}(?![\d.])")
    assert not [path for path in (ROOT / "src").rglob("*.py") if named.search(path.read_text())]


DOCKERFILE = (ROOT / "envs" / "Dockerfile").read_text().replace("\\\n", " ")
COPIED = [word for line in re.findall(r"^COPY (.*) \S+$", DOCKERFILE, flags=re.MULTILINE) for word in line.split()]


def test_the_image_is_built_from_the_lock_and_from_what_it_copies():
    """No engine builds it here; hadolint 2.15.1 passed it. The wheel below is built of what it copies, and no more."""
    (image,) = re.findall(r"^FROM python:(\S+?)-", DOCKERFILE, flags=re.MULTILINE)
    assert f"--python-version {image}" in (ROOT / "Makefile").read_text()  # of the lock
    runs = re.findall(r"^RUN (.*)$", DOCKERFILE, flags=re.MULTILINE)
    assert "--require-hashes -r requirements.lock" in runs[0] and "--no-deps ." in runs[1]
    allowed = (ROOT / "envs" / "Dockerfile.dockerignore").read_text().split()
    assert allowed[0] == "*" and {f"!{name}" for name in COPIED} == {name for name in allowed if name.startswith("!")}
    assert all((ROOT / name).exists() for name in COPIED)


def test_a_wheel_carries_the_workflow_its_presets_and_profiles(tmp_path):
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    tracked = [name for name in filter(None, listed.split("\0")) if (ROOT / name).exists()]
    for name in tracked:
        if name.split("/")[0] in COPIED:
            (tmp_path / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tmp_path / "tree" / name, follow_symlinks=False)
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", tmp_path, "."]
    subprocess.run(build, cwd=tmp_path / "tree", check=True)
    (wheel,) = tmp_path.glob("*.whl")
    needed = [name for name in tracked if name.startswith(("workflow/", "config/", "envs/"))]
    assert len(needed) > 40
    with zipfile.ZipFile(wheel) as packed:
        for name in needed:
            assert packed.read(f"cutsew/packaged/{name}") == (ROOT / name).read_bytes()
