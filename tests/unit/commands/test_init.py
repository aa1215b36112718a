"""A config file for a folder of images, and the packaged workflow run on it."""

import sys
from pathlib import Path

import pytest
import yaml
from packed_images import pack_huggingface, pack_img2dataset, pack_tars
from workflow_run import draw_image

from cutsew.cli import main
from cutsew.commands import init as command
from cutsew.config import load
from cutsew.data.listing import list_images
from cutsew.pipeline import snakemake_call, survey
from cutsew.pipeline.network_work import assumed_gflops
from cutsew.pipeline.plan import Plan
from cutsew.pipeline.run_estimate import Speed, estimate_run


class FakeTeacher:
    image_size = 8

    def embed_images(self, images):
        return images.float().mean(dim=(1, 2, 3))


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working folder with images, in which no network and no real teacher is used."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setattr(survey.teachers, "build", lambda *_: FakeTeacher())
    for i in range(12):
        draw_image(tmp_path / "My photos!" / ("deep/a.jpg" if i == 0 else f"{i}.png"), i)
    (tmp_path / "My photos!" / "notes.txt").write_text("no image")
    return tmp_path


def cutsew(monkeypatch, capsys, *words):
    """Call the command line; return its exit status, standard output and the messages."""
    monkeypatch.setattr(sys, "argv", ["cutsew", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr()
    return ended.value.code or 0, said.out, said.err


@pytest.mark.parametrize("words", [["--offline"], []])
def test_the_config_names_folder_and_classes_and_is_valid(here, monkeypatch, capsys, words):
    status, out, err = cutsew(monkeypatch, capsys, "init", "My photos!", "--classes", "cat, dog,it's: [a] #1", *words)
    assert status == 0, err
    text = (here / "config.yaml").read_text()
    raw = yaml.safe_load(text)
    assert raw["classes"] == ["cat", "dog", "it's: [a] #1"]
    assert raw["dataset"]["root"] == "My photos!" and raw["dataset"]["name"] == "My-photos"
    assert raw["dataset"]["truth"] is None and "results/My-photos/default/skipped.csv" in text
    assert raw["teacher"]["kind"] == ("conse" if words else "open_clip")
    Plan(raw)
    assert "12 images (11 .png, 1 .jpg)" in out and "about 80 x 60 pixels; 1 file of another kind" in out
    assert all(line in text for line in out.splitlines()[:3])
    assert ("does not answer" in out) == (not words)
    assert ("to download" in out) == (not words) and ("measured on a few images" in out) == bool(words)


def test_everything_else_stands_as_in_the_preset(here, monkeypatch, capsys):
    cutsew(monkeypatch, capsys, "init", "My photos!", "--classes", "cat,dog", "--offline")
    made, preset = (
        yaml.safe_load(text) for text in ((here / "config.yaml").read_text(), snakemake_call.preset("folder-offline"))
    )
    for raw in (made, preset):
        raw.pop("classes")
        for name in ("name", "root", "truth"):
            raw["dataset"].pop(name)
    assert made == preset


@pytest.mark.parametrize(
    ("pack", "place", "dataset", "says"),
    [
        (pack_tars, "", {"kind": "tar", "files": "*.tar"}, "12 images (in 2 .tar)"),
        (pack_tars, "deep", {"kind": "tar", "files": "**/*.tar"}, "12 images (in 2 .tar)"),
        (pack_img2dataset, "x.parquet", {"kind": "parquet", "files": "*.parquet"}, "12 images (in 1 .parquet)"),
        (pack_huggingface, "a/x.parquet", {"kind": "parquet", "files": "**/*.parquet"}, "12 images (in 1 .parquet)"),
    ],
)
def test_tars_and_parquet_files_in_place_of_images(here, monkeypatch, capsys, pack, place, dataset, says):
    (here / "My photos!" / "notes.txt").unlink()
    pack(here / "My photos!", here / "packed" / place)
    (here / "packed" / "notes.txt").write_text("no image")
    (here / "packed" / "0.parquet").write_bytes(b"metadata of img2dataset") if pack is pack_tars else None
    status, out, err = cutsew(monkeypatch, capsys, "init", "packed", "--classes", "cat,dog", "--offline")
    assert status == 0, err
    config = load(yaml.safe_load((here / "config.yaml").read_text()))
    assert config.dataset.model_dump(include={"kind", "files"}) == dataset
    assert len(list_images(config.dataset)) == 12
    assert says in out and "about 80 x 60 pixels" in out and "unreadable" not in out
    assert executed(monkeypatch, capsys, "run", "packed", "--classes", "cat,dog", "--offline")


def test_a_damaged_tar_is_no_reason_to_stop(here, monkeypatch, capsys):
    (here / "My photos!" / "notes.txt").unlink()
    first, second = pack_tars(here / "My photos!", here / "packed")
    second.write_bytes(second.read_bytes()[:700])
    assert cutsew(monkeypatch, capsys, "init", "packed", "--classes", "cat,dog", "--offline")[0] == 0


def test_classes_from_a_text_file(here, monkeypatch, capsys):
    (here / "names.txt").write_text(
        "\ufeffcat\n\n  polar bear  \n# not this\ntv, old # with a comma\n", encoding="utf-8"
    )
    assert cutsew(monkeypatch, capsys, "init", "My photos!", "--classes", "names.txt", "--offline")[0] == 0
    assert yaml.safe_load((here / "config.yaml").read_text())["classes"] == ["cat", "polar bear", "tv, old"]


@pytest.mark.parametrize("name", ["zz.csv", "My photos!/truth.csv"])
def test_true_labels_next_to_the_images_are_found(here, monkeypatch, capsys, name):
    (here / "aa.csv").write_text("path,price\n1.png,3\n")
    (here / name).write_text("path,labels\n1.png,cat\ndeep/a.jpg,cat;dog\n")
    _, out, _ = cutsew(monkeypatch, capsys, "init", "My photos!", "--classes", "cat,dog", "--offline")
    assert yaml.safe_load((here / "config.yaml").read_text())["dataset"]["truth"] == name
    assert f"true labels: {name}, for evaluation only" in out


@pytest.mark.parametrize(
    "header", ["image,labels,cat,dog", "image,class,probability,named", "id,labels,model_labels,by_human"]
)
def test_predictions_are_not_taken_for_true_labels(here, monkeypatch, capsys, header):
    (here / "labels.csv").write_text(f"{header}\n1.png,cat,0.9,0.1\n")
    (here / "gone.csv").symlink_to("nowhere")
    status, *_ = cutsew(monkeypatch, capsys, "init", "My photos!", "--classes", "cat,dog", "--offline")
    assert status == 0 and yaml.safe_load((here / "config.yaml").read_text())["dataset"]["truth"] is None


@pytest.mark.parametrize("address", ["http://mirror:port", "http://[::1"])
def test_a_hub_whose_address_is_invalid_does_not_answer(monkeypatch, address):
    monkeypatch.setenv("HF_ENDPOINT", address)
    assert not survey.hub_answers()


def test_unreadable_images_are_told(here, monkeypatch, capsys):
    (here / "My photos!" / "1.png").write_bytes(b"")
    _, out, _ = cutsew(monkeypatch, capsys, "init", "My photos!", "--classes", "cat,dog", "--offline")
    assert "warning: 1 of 8 sampled images cannot be read (1.png: empty file); they are skipped" in out


REFUSED = {
    "no photos": (["init", "--classes", "cat,dog"], "PHOTOS: missing"),
    "no folder": (["init", "nowhere", "--classes", "cat,dog"], "nowhere: is not a folder"),
    "a file": (["init", "My photos!/1.png", "--classes", "cat,dog"], "1.png: is not a folder"),
    "no images": (["init", "empty", "--classes", "cat,dog"], "empty: holds no images, only 1 other files (.doc)"),
    "no classes": (["init", "My photos!"], "--classes: missing; name what to look for"),
    "empty classes": (["init", "My photos!", "--classes", " , "], "--classes: ' , ' names none"),
    "no file of classes": (["init", "My photos!", "--classes", "lost.txt"], "--classes: lost.txt cannot be read"),
    "the same class twice": (["init", "My photos!", "--classes", "cat,cat"], "names cat more than once"),
    "run without config": (["run"], "config.yaml: no such config file; write one with cutsew init"),
    "run with classes alone": (["run", "--classes", "cat,dog"], "PHOTOS: missing"),
    "run without folder": (["run", "nowhere", "--classes", "cat,dog"], "nowhere: is not a folder"),
    "run without classes": (["run", "My photos!"], "--classes: missing"),
}


@pytest.mark.parametrize("words, says", REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_is_refused_in_one_line(here, monkeypatch, capsys, words, says):
    (here / "empty").mkdir()
    (here / "empty" / "a.doc").touch()
    before = sorted(here.rglob("*"))
    status, out, err = cutsew(monkeypatch, capsys, *words, *(["--offline"] if "My photos!" in words else []))
    assert status == 1 and err.count("\n") == 1 and says in err and not out
    assert sorted(here.rglob("*")) == before


def test_init_never_overwrites_a_config(here, monkeypatch, capsys):
    (here / "config.yaml").write_text("mine")
    status, _, err = cutsew(monkeypatch, capsys, "init", "My photos!", "--classes", "cat,dog")
    assert status == 1 and "config.yaml: exists already and is not overwritten; run it with cutsew run" in err
    assert (here / "config.yaml").read_text() == "mine"


EDITED = """# edited
classes: [cat, dog]
dataset: {name: mine, kind: folder, root: "My photos!"}
teacher: {kind: open_clip}
"""


@pytest.mark.parametrize("classes", [["--classes", "dog, cat"], ["--classes", "names.txt"], []])
@pytest.mark.parametrize("photos", ["My photos!", "./My photos!/", "{here}/My photos!"])
def test_the_same_run_command_resumes_with_the_edited_config(here, monkeypatch, capsys, photos, classes):
    (here / "config.yaml").write_text(EDITED)
    (here / "names.txt").write_text("cat\ndog\n")
    words = executed(monkeypatch, capsys, "run", photos.format(here=here), *classes)
    assert words[-2:] == ["--configfile", "config.yaml"] and (here / "config.yaml").read_text() == EDITED


OTHER_CONFIGS = {
    "other images": ("elsewhere", "cat,dog", [], "dataset.root My photos!, not elsewhere"),
    "other classes": ("My photos!", "cat,cow", [], "other classes (without cow; with dog)"),
    "one class more": ("My photos!", "cat,dog,cow", [], "other classes (without cow)"),
    "other models": ("My photos!", "cat,dog", ["--offline"], "teacher.open_clip.model RN50x64, not the models"),
}


@pytest.mark.parametrize("photos, classes, more, says", OTHER_CONFIGS.values(), ids=OTHER_CONFIGS)
def test_another_run_command_never_uses_the_config(here, monkeypatch, capsys, photos, classes, more, says):
    (here / "config.yaml").write_text(EDITED)
    status, out, err = cutsew(monkeypatch, capsys, "run", photos, "--classes", classes, *more)
    assert status == 1 and not out and err.count("\n") == 1
    assert err.startswith(f"cutsew: config.yaml: exists with {says}") and "type cutsew run to use it" in err
    assert (here / "config.yaml").read_text() == EDITED


def test_a_config_without_images_is_of_another_run(here, monkeypatch, capsys):
    (here / "config.yaml").write_text("classes: [cat, dog]\n")
    assert "dataset.root None" not in (err := cutsew(monkeypatch, capsys, "run", ".", "--classes", "cat,dog")[2])
    assert "config.yaml: exists with dataset.kind demo, not" in err


def test_without_snakemake_run_says_what_to_install(here, monkeypatch, capsys):
    monkeypatch.setattr(snakemake_call, "find_spec", lambda _: None)
    status, _, err = cutsew(monkeypatch, capsys, "run", "My photos!", "--classes", "cat,dog", "--offline")
    assert status == 1 and err == "cutsew: snakemake is not installed; install it with pip install 'cutsew[workflow]'\n"
    assert not (here / "config.yaml").exists()


def executed(monkeypatch, capsys, *words):
    """Return the words with which snakemake would be executed."""
    called = []
    monkeypatch.setattr(snakemake_call.os, "execv", lambda _, command: called.append(command))
    cutsew(monkeypatch, capsys, *words)
    (command,) = called
    assert command[:4] == [sys.executable, "-P", "-m", "snakemake"]
    return command[4:]


def test_run_writes_the_config_and_passes_on_what_follows(here, monkeypatch, capsys):
    words = [
        "run",
        "My photos!",
        "--classes",
        "cat,dog",
        "--offline",
        "--",
        "labels",
        "--cores",
        "1",
        "--config",
        "a=b",
    ]
    ours = ["--snakefile", str(snakemake_call.SNAKEFILE), "--configfile", "config.yaml"]
    assert executed(monkeypatch, capsys, *words) == [*words[6:], *ours]
    assert (here / "config.yaml").exists()
    (here / "slurm").mkdir()
    assert executed(monkeypatch, capsys, "run", "--", "--profile", "slurm") == ["--profile", "slurm", *ours]
    (here / "slurm").rmdir()
    slurm = snakemake_call.PACKAGED / "workflow" / "profiles" / "slurm"
    assert executed(monkeypatch, capsys, "run", "--", "--profile", "slurm") == ["--profile", str(slurm), *ours]
    assert executed(monkeypatch, capsys, "run", "--", "--profile=slurm") == [f"--profile={slurm}", *ours]
    assert executed(monkeypatch, capsys, "run", "--", "--configfile", "b.yaml") == ["--configfile", "b.yaml", *ours[:2]]
    (here / "config.yaml").unlink()
    (here / "config").mkdir()
    (here / "config" / "config.yaml").touch()
    assert executed(monkeypatch, capsys, "run")[-1] == "config/config.yaml"
    status, _, err = cutsew(monkeypatch, capsys, "run", "--", "-s", "other")
    assert status == 1 and "--snakefile: cutsew run has its own" in err


def test_the_package_holds_the_workflow():
    assert snakemake_call.SNAKEFILE.is_file()
    assert (snakemake_call.PACKAGED / "envs" / "cutsew.yaml").is_file()
    assert command.preset("folder").startswith("#")


def test_the_estimate_follows_images_and_speed():
    config = Plan(yaml.safe_load(snakemake_call.preset("folder"))).runs["default"]
    slow = Speed(images=10, gflops=assumed_gflops(2, gpu=False))
    fast = Speed(images=20, gflops=2 * slow.gflops)
    one, two = (estimate_run(config, n, 0, slow) for n in (2_000, 4_000))
    assert two.seconds == pytest.approx(2 * one.seconds) and two.bytes > one.bytes and one.weights == 2500 + 480
    assert estimate_run(config, 2_000, 0, fast).seconds == pytest.approx(one.seconds / 2)
    assert estimate_run(config, 2_000, 7, slow).seconds > one.seconds


@pytest.mark.parametrize(
    "seconds, words", [(20, "1 minute"), (600, "10 minutes"), (9000, "2.5 hours"), (4e5, "4.6 days")]
)
def test_durations(seconds, words):
    assert survey.time_in_words(seconds) == words


def test_sizes():
    assert [survey.size_in_words(n) for n in (900, 1.5e6, 2.5e9, 4e12)] == ["0.9 kB", "1.5 MB", "2.5 GB", "4.0 TB"]


def test_a_mistyped_command_is_hinted_at(monkeypatch, capsys):
    status, _, err = cutsew(monkeypatch, capsys, "innit")
    assert status == 2 and err.endswith("No such command 'innit'; did you mean init?\n")
    assert "did you mean diff_runs?" in cutsew(monkeypatch, capsys, "diff-rns")[2]
    assert "did you mean" not in cutsew(monkeypatch, capsys, "xyzzy")[2]


def test_help_lists_new_commands_first(monkeypatch, capsys):
    _, out, _ = cutsew(monkeypatch, capsys, "--help")
    people, stages = out.split("Stages (called by the workflow's rules):")
    assert people.index("  init ") < people.index("  run ") < people.index("  predict ")
    assert "  init " not in stages


def test_dataset_names(tmp_path):
    assert [command.dataset_name(Path(name)) for name in ("/a/Ü b", "/a/..x", "/")] == ["b", "x", "images"]
