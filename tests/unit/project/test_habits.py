"""What outsiders meet first: hooks, workflows, forms and editor support agree with the project."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator

ROOT = Path(__file__).parents[3]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
TARGETS = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
PRESETS = sorted((ROOT / "config").glob("*.yaml"))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_call_make_targets_that_exist(path):
    called = re.findall(r"(?:run: |&& )make ([a-z]+)", path.read_text())
    assert called and set(called) <= TARGETS
    jobs = yaml.safe_load(path.read_text())["jobs"]
    for job in jobs.values():
        assert set([job.get("needs")] if "needs" in job else []) <= set(jobs)


def test_workflows_do_what_the_ci_does():
    done = {target for path in WORKFLOWS for target in re.findall(r"(?:run: |&& )make ([a-z]+)", path.read_text())}
    assert set(re.findall(r"^make ([a-z]+)", (ROOT / ".ci" / "run").read_text(), re.MULTILINE)) <= done


def test_all_supported_pythons_are_tested():
    matrix = yaml.safe_load((ROOT / ".github/workflows/test.yml").read_text())["jobs"]["test"]["strategy"]["matrix"]
    assert PROJECT["requires-python"] == f">={matrix['python'][0]}" and len(matrix["python"]) == 3


def test_hooks_run_tools_that_are_installed_with_dev():
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    tools = {hook["entry"].split()[0] for repo in config["repos"] for hook in repo["hooks"]} - {"python"}
    assert tools <= {re.match(r"[\w-]+", name)[0] for name in PROJECT["optional-dependencies"]["dev"]}
    for hook in (hook for repo in config["repos"] for hook in repo["hooks"]):
        assert all((ROOT / word).exists() for word in hook["entry"].split() if word.startswith("tests/"))


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_editors_find_the_schema_and_it_accepts_the_preset(path):
    first, text = path.read_text().split("\n", 1)
    schema = (path.parent / first.removeprefix("# yaml-language-server: $schema=")).resolve()
    assert schema == ROOT / "workflow" / "schemas" / "config.schema.json"
    errors = Draft202012Validator(yaml.safe_load(schema.read_text())).iter_errors(yaml.safe_load(text))
    assert [error.message for error in errors] == []


def test_issue_forms_are_complete():
    for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("[!c]*.yml"):
        form = yaml.safe_load(path.read_text())
        assert form["name"] and form["description"]
        assert all(field["id"] and field["attributes"]["label"] for field in form["body"])
        known = {"label", "description", "placeholder", "value", "render", "options", "multiple"}
        assert all(set(field["attributes"]) <= known for field in form["body"])  # a comma in plain text makes more


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_actions_are_pinned_and_leave_no_token_behind(path):
    steps = [step for job in yaml.safe_load(path.read_text())["jobs"].values() for step in job["steps"]]
    used = [step for step in steps if "uses" in step]
    assert used and all(re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", step["uses"]) for step in used)
    checkouts = [step for step in used if step["uses"].startswith("actions/checkout@")]
    assert all(step["with"]["persist-credentials"] is False for step in checkouts)


def test_the_catalog_file_names_what_is_there():
    usage = yaml.safe_load((ROOT / ".snakemake-workflow-catalog.yml").read_text())["usage"]
    assert set(usage) == {"mandatory-flags", "software-stack-deployment", "report"}
    assert set(usage["mandatory-flags"]) == {"desc", "flags"}
    assert usage["software-stack-deployment"]["conda"] == any((ROOT / "envs").glob("*.yaml"))
    assert usage["report"] == any("report(" in path.read_text() for path in (ROOT / "workflow").rglob("*.smk"))
    assert (ROOT / "config" / "README.md").is_file() and (ROOT / "workflow" / "Snakefile").is_file()


def test_the_changelog_keeps_its_form():
    text = (ROOT / "CHANGELOG.md").read_text()
    assert "keepachangelog.com" in text
    for release in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        sections = re.findall(r"^### (.+)$", release, re.MULTILINE)
        assert sections[-1] == "What reruns"
        assert set(sections) <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security", "What reruns"}
