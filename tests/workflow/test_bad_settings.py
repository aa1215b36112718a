"""A wrong setting ends in one line, before any job starts."""

import copy

import pytest

pytestmark = pytest.mark.workflow


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"fuse__alpha": -0.1}, "fuse.alpha: input should be greater than or equal to 0, not -0.1"),
        ({"fuse__alhpa": 0.1}, "fuse.alhpa: unknown setting; did you mean alpha?"),
        ({"fuse__gate": 0.1}, "fuse.gate: is a setting of rule gated, and fuse.rule is max; leave it out, or set"),
        ({"sew__p": 1.0}, "sew.p: input should be less than 1, not 1.0"),
        ({"select__top_k": 7}, "select.top_k: 7 is more than the 6"),
        ({"classes": ["cat", "cat"]}, "classes: names cat more than once; keep one"),
        ({"classes": "cat, unicorn"}, "classes: "),
        (
            {"teacher__open_clip__pretrained": "no/such.safetensors"},
            "teacher.open_clip.pretrained: no/such",
        ),
        ({"dataset__root": "nowhere"}, "dataset.root: "),
        ({"train__epochs": "many"}, "train.epochs: input should be a valid integer"),
    ],
)
def test_one_line_and_nothing_made(workflow, changes, line):
    good = copy.deepcopy(workflow.settings)
    workflow.edit(**changes)
    done = workflow.snakemake()
    workflow.settings = good
    errors = [text for text in done.stderr.splitlines() if text.startswith("cutsew: ")]
    assert done.returncode == 1
    assert len(errors) == 1 and errors[0].startswith(f"cutsew: {line}")
    assert "Traceback" not in done.stderr
    assert not workflow.results.exists()


def test_two_wrong_settings_are_two_lines(workflow):
    good = copy.deepcopy(workflow.settings)
    workflow.edit(fuse__alpha=-0.1, sew__p=1.0)
    done = workflow.snakemake("-n")
    workflow.settings = good
    assert done.returncode == 1
    assert [text.partition(": input")[0] for text in done.stderr.splitlines() if "input should" in text] == [
        "cutsew: fuse.alpha",
        "cutsew: sew.p",
    ]


def test_config_on_the_command_line_selects_another_kind_than_the_file(workflow):
    workflow.edit(fuse__alpha=0.3)
    assert workflow.snakemake("-n", "--config", "fuse={rule: mean}").returncode == 0
    refused = workflow.snakemake("-n", "--config", "fuse={rule: mean, zeta: 0.5}")
    assert refused.returncode == 1
    assert "cutsew: fuse.zeta: is a setting of rule cdul, and fuse.rule is mean" in refused.stderr


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["labels"], "--configfile takes every word after it, labels too; name targets before the options: snakemake"),
        (["missing.yaml"], "missing.yaml: cannot be read (No such file or directory); name a config file"),
        (["tabs.yaml"], "tabs.yaml, line 2: not YAML"),
        (["list.yaml"], "list.yaml: holds a list, not settings by name"),
        (["empty.yaml"], "empty.yaml: holds nothing, not settings by name"),
        (["folder.yaml"], "folder.yaml: cannot be read (Is a directory)"),
        (["utf-16.yaml"], "utf-16.yaml: not UTF-8 text; save it as UTF-8"),
        (["comma.json"], "comma.json, line 3: not JSON"),
    ],
    ids=lambda words: "".join(words).partition(".")[0] if isinstance(words, list) else "",
)
def test_a_damaged_config_file_ends_in_one_line(workflow, words, line):
    contents = {
        "tabs.yaml": b"classes:\n\t- cat\n",
        "list.yaml": b"[cat, dog]\n",
        "empty.yaml": b"",
        "utf-16.yaml": "classes: [cat, dog]\n".encode("utf-16"),
        "comma.json": b'{\n"classes": ["cat", "dog"],\n}',
    }
    for name, content in contents.items():
        (workflow.folder / name).write_bytes(content)
    (workflow.folder / "folder.yaml").mkdir(exist_ok=True)
    done = workflow.snakemake("--configfile", "config/config.yaml", *words)
    assert done.returncode == 1
    assert [text for text in done.stderr.splitlines() if not text.startswith("Using ")] == [
        text for text in done.stderr.splitlines() if text.startswith(f"cutsew: {line}")
    ]
    assert len(done.stderr.splitlines()) == 2 and not done.stdout


def test_the_default_config_file_is_checked_as_well(workflow):
    config = workflow.folder / "elsewhere" / "config" / "config.yaml"
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text("classes: [cat\nfuse: {}\n")
    done = workflow.snakemake("--directory", "elsewhere")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("cutsew: config/config.yaml, line 2: not YAML")
    assert "Traceback" not in done.stderr


def test_files_where_folders_are_needed_are_lines_and_stay(workflow):
    places = [workflow.results / ".settings", workflow.results / "default" / "logs"]
    for path in places:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine")
    done = workflow.snakemake()
    said = "is a file where a folder is needed; move it away or delete it, and rerun"
    assert done.returncode == 1
    assert [line for line in done.stderr.splitlines() if line.startswith("cutsew: ")] == [
        f"cutsew: {path.relative_to(workflow.folder)}: {said}" for path in places
    ]
    assert "Traceback" not in done.stderr
    assert [path.read_text() for path in places] == ["mine"] * 2
    for path in places:
        path.unlink()


@pytest.mark.parametrize("target", [[], ["labels"]])
def test_a_training_that_does_not_fit_is_refused_before_any_job(workflow, target):
    good = copy.deepcopy(workflow.settings)
    workflow.edit(dataset__name="large", train__adapter={"layers": 10**8})  # more than any machine has
    refused = workflow.snakemake("-n", *target)
    workflow.settings = good
    errors = [text for text in refused.stderr.splitlines() if text.startswith("cutsew: ")]
    assert refused.returncode == 1
    assert len(errors) == 1 and errors[0].startswith("cutsew: train: ")
    assert "set train.head: linear" in errors[0]
