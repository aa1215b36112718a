"""Verify names exactly what is not as it was made."""

import json
import shutil
from pathlib import Path

import pytest
import typer
from recorded_run import IDS, encode, flip, make_label, make_logits, make_manifest, make_runs, make_sew, seal_views
from typer.testing import CliRunner

from cutsew.commands.verify import verify
from cutsew.provenance.lineage import ProvenanceIndex
from cutsew.provenance.verification import Verifier


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    make_runs(folder)
    return folder


@pytest.fixture
def base(made, tmp_path):
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return tmp_path / "results" / "tiny" / "default"


def check(folder):
    return Verifier(ProvenanceIndex()).findings(folder)


def named(folder):
    return [str(finding.path.relative_to(folder)) for finding in check(folder)]


def call(folder):
    app = typer.Typer()
    app.command()(verify)
    return CliRunner().invoke(app, [str(folder)])


@pytest.mark.parametrize("run", ["default", "other"])
def test_an_undamaged_run_passes(base, run):
    done = call(base.with_name(run))
    assert done.exit_code == 0
    assert f"{run}: all files match their records: 2" in done.stdout and done.stdout.count("\n") == 1


TABLES = ["images.parquet", "shards.csv", "skipped.csv", "truth.parquet", "cutsew-tiny.safetensors", "patches.parquet"]
TABLES += ["adapter.safetensors", "model.yaml", "history.csv", "metrics.csv", "per_class.csv", "confidence.csv"]
TABLES += ["references/supervised/adapter.safetensors", "references/supervised/history.csv"]
TABLES += ["agreement.csv", "report.html", "scenes.png", "world/ImageSets/Main/train.txt"]
CHUNKS = ["views.zarr/global/c/0/0", "views.zarr/crops/c/1/0/0", "views.zarr/boxes/c/0/1/0"]
GROUPS = {
    "text.zarr": "text/c/0/0",
    "views.zarr": "pass/c/0",
    "logits.zarr": "crops/c/2/1/0",
    "fused.zarr": "z/c/1/0",
    "pseudo.zarr": "image/c/0",
    "refined.zarr": "z/c/0/0",
    "scores.zarr": "class/c/0",
    "references/supervised/labels.zarr": "z/c/0/0",
    "references/supervised/scores.zarr": "z/c/0/0",
}


@pytest.mark.parametrize("name", [*TABLES, *CHUNKS])
def test_a_flipped_bit_of_a_file_is_named(base, name):
    flip(base / name)
    if name == "world/ImageSets/Main/train.txt":
        assert name in named(base)
    else:
        assert named(base) == [name]


@pytest.mark.parametrize(("group", "chunk"), GROUPS.items())
def test_a_flipped_bit_of_a_zarr_is_named(base, group, chunk):
    flip(base / group / chunk)
    assert named(base) == [group]


@pytest.mark.parametrize("group", GROUPS)
def test_an_edited_seal_is_named(base, group):
    seal = base / group / "zarr.json"
    content = json.loads(seal.read_text())
    content["attributes"]["note"] = "edited"
    seal.write_text(json.dumps(content))
    assert named(base) == [f"{group}/zarr.json"]


@pytest.mark.parametrize("group", GROUPS)
def test_an_edited_digest_of_a_seal_is_named(base, group):
    seal = base / group / "zarr.json"
    digest = json.loads(seal.read_text())["attributes"]["digest"]
    seal.write_text(seal.read_text().replace(digest, "0" * 64))
    assert named(base) == [f"{group}/zarr.json"]


@pytest.mark.parametrize("name", ["JPEGImages/train_00001.jpg", "Annotations/val_00000.xml"])
def test_a_changed_image_of_the_demo_is_told(base, name):
    flip(base / "world" / name)
    assert named(base) == [f"world/{name.split('/')[0]}"]
    base.joinpath("world", name).unlink()
    assert named(base) == [f"world/{name}"]


@pytest.mark.parametrize(
    "name", [*TABLES[:-1], *CHUNKS, *(f"{group}/{chunk}" for group, chunk in GROUPS.items()), "fused.zarr/z/zarr.json"]
)
def test_what_is_lost_is_named(base, name):
    base.joinpath(name).unlink()
    assert named(base) == [name]


def test_a_whole_zarr_that_is_lost_is_named(base):
    shutil.rmtree(base / "pseudo.zarr")
    assert named(base) == ["pseudo.zarr"]


@pytest.mark.parametrize("name", ["fused.json", "views.json", "adapter.json", "report.json"])
def test_an_unreadable_record_is_named(base, name):
    base.joinpath(name).write_text("{")
    assert named(base) == [name]


@pytest.mark.parametrize(("record", "artifact"), [("fused.json", "fused.zarr"), ("truth.json", "truth.parquet")])
def test_an_artifact_without_a_record_is_named(base, record, artifact):
    base.joinpath(record).unlink()
    assert named(base) == [artifact]


def test_a_chunk_without_its_jobs_record_is_named(base):
    base.joinpath("views.records", "0-1.json").unlink()
    assert named(base) == [f"views.zarr/{name}/1/0" for name in ("boxes/c/0", "crops/c/0", "global/c")]


@pytest.mark.parametrize("stem", ["fused", "pseudo", "refined", "scores"])
def test_a_zarr_of_another_run_is_named(base, stem):
    other = base.with_name("other")
    shutil.rmtree(base / f"{stem}.zarr")
    shutil.copytree(other / f"{stem}.zarr", base / f"{stem}.zarr")
    assert named(base) == [f"{stem}.zarr"]


@pytest.mark.parametrize("stem", ["adapter", "metrics", "report"])
def test_files_of_another_run_are_named(base, stem):
    name = {"adapter": "adapter.safetensors", "metrics": "metrics.csv", "report": "report.html"}[stem]
    shutil.copy(base.with_name("other") / name, base / name)
    assert named(base) == [name]


def swap(stem, source, target):
    """Put another run's artifact with its record in the place of a run's own."""
    shutil.rmtree(target / f"{stem}.zarr")
    shutil.copytree(source / f"{stem}.zarr", target / f"{stem}.zarr")
    target.joinpath(f"{stem}.json").write_text(source.joinpath(f"{stem}.json").read_text())


@pytest.mark.parametrize("stem", ["fused", "pseudo", "refined", "scores"])
def test_an_older_artifact_swapped_together_with_its_record_is_named(base, stem):
    """The record of the base run names inputs of its own folder, so both are told from their neighbors."""
    swap(stem, base, base.with_name("other"))
    assert f"{stem}.zarr" in named(base.with_name("other"))
    assert not [f for f in check(base.with_name("other")) if f.path.name != f"{stem}.zarr" and "stale:" in f.wrong]


READERS = {
    "fused": {"pseudo.zarr", "metrics.csv", "report.html"},
    "pseudo": {"adapter.safetensors", "refined.zarr", "metrics.csv", "report.html"},
    "logits": {"fused.zarr", "patches.parquet", "thresholds.csv", "metrics.csv", "report.html"},
}


@pytest.mark.parametrize("stem", READERS)
def test_what_was_made_from_an_earlier_input_is_stale_and_the_new_input_is_not(base, stem):
    """As after `snakemake --until fuse` with another alpha: the file that was just made is not the stale one."""
    remake(base, stem)
    assert {finding.path.name for finding in check(base)} == READERS[stem]
    assert {finding.wrong for finding in check(base)} == {f"stale: made from an earlier {stem}.zarr"}
    assert not any(finding.damaged for finding in check(base))


def remake(base, stem):
    if stem == "logits":
        patches = base.joinpath("patches.parquet").read_text(), base.joinpath("patches.json").read_text()
        make_logits(base, seed=3)
        base.joinpath("patches.parquet").write_text(patches[0])
        base.joinpath("patches.json").write_text(patches[1])
    elif stem == "fused":
        make_label("fuse", base, "fused.zarr", [base / "logits.zarr"], 3)
    else:
        make_label("correct", base, "pseudo.zarr", [base / "fused.zarr"], 3)


def test_a_seal_that_is_older_than_a_chunk_is_stale_and_the_chunk_is_not(base):
    """As after a run that ended between encoding and sealing."""
    encode(base, 1, 1, seed=5)
    assert named(base) == ["views.zarr"]
    (finding,) = check(base)
    assert finding.wrong == "stale: sealed before boxes/c/1/1/0 was made"


def test_a_chunk_of_another_run_is_named_even_with_its_record(base):
    record, seal = base / "views.records" / "1-1.json", base / "views.json"
    encode(base, 1, 1, seed=5)
    content = json.loads(record.read_text())
    record.write_text(json.dumps(content | {"end": json.loads(seal.read_text())["start"]}))
    assert named(base) == ["views.zarr/boxes/c/1/1/0", "views.zarr/crops/c/1/1/0"]


def test_what_was_not_made_anew_is_stale(base):
    make_logits(base, seed=3)
    make_sew(base, base)
    assert named(base) == []
    other = base.with_name("other")
    stale = {str(finding.path.relative_to(other.parent)) for finding in check(other)}
    assert stale >= {"other/fused.zarr"} and all(name.startswith("other/") for name in stale)


def test_damage_to_what_a_variant_was_made_from_is_told(base):
    flip(base / "logits.zarr" / "zero_shot" / "c" / "0" / "0")
    assert [f.path for f in check(base.with_name("other"))] == [base / "logits.zarr"]


AFTER = ["adapter.safetensors", "maps.zarr", "metrics.csv", "patches.parquet"]
REFERENCE = ("adapter.safetensors", "labels.zarr", "refined.zarr", "scores.zarr")
AFTER += [f"references/supervised/{name}" for name in REFERENCE]
AFTER += ["refined.zarr", "report.html", "scores.zarr", "truth.parquet"]
"""What a changed manifest makes stale."""


def test_new_images_leave_the_embeddings_of_others_as_they_were(base):
    """The manifest is another then, but the rows of the first shard are not, and its jobs need not run again."""
    make_manifest(base, [*IDS, "val_00007"])
    encode(base, 1, 0)
    encode(base, 1, 1)
    seal_views(base)
    assert named(base) == sorted([*AFTER, "logits.zarr"])


def test_other_images_make_the_embeddings_of_their_shard_stale(base):
    make_manifest(base, [*IDS[:4], "val_00009", "val_00001"])
    chunks = ["views.zarr/crops/c/1/1/0", "views.zarr/global/c/1/0"]  # one of each job
    assert named(base) == [*AFTER, "views.zarr", *chunks]


def test_a_manifest_that_says_the_same_leaves_all_as_it_was(base):
    record = json.loads(base.joinpath("patches.json").read_text())
    record["inputs"]["images.parquet"] = "0" * 64
    base.joinpath("patches.json").write_text(json.dumps(record))
    assert named(base) == []
    del record["listing"]
    base.joinpath("patches.json").write_text(json.dumps(record))
    assert named(base) == ["patches.parquet"]


def test_embeddings_of_earlier_settings_are_not_looked_at(base):
    encode(base, 0, 2, seed=9)
    base.joinpath("views.zarr/crops/c/2/0/0").write_bytes(b"")
    assert named(base) == []


def test_a_lost_file_of_the_user_is_named(base):
    record = json.loads(base.joinpath("truth.json").read_text())
    record["inputs"]["../../../truth.csv"] = "0" * 64
    base.joinpath("truth.json").write_text(json.dumps(record))
    truth = base.parents[2] / "truth.csv"
    (finding,) = check(base)
    assert finding.path == truth and "missing" in finding.wrong and finding.target is None
    assert call(base).stdout == f"{truth}: {finding.wrong}; put it back\n"
    truth.write_text("path,labels\n")
    assert named(base) == ["truth.parquet"]


def test_each_file_is_digested_once(base):
    seen = []
    Verifier(ProvenanceIndex(), seen.append).findings(base)
    assert len(seen) == len(set(seen)) > 60


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("fused.zarr/z/c/0/0", "fused.zarr/zarr.json"),
        ("views.zarr/crops/c/0/1/0", "views.zarr/crops/c/0/1/0"),
        ("views.zarr/pass/c/0", "views.zarr/zarr.json"),
        ("patches.parquet", "patches.parquet"),
        ("world/JPEGImages/train_00001.jpg", "world.json"),
    ],
)
def test_the_command_names_a_rules_output(base, name, target):
    base.joinpath(name).unlink()
    done = call(base)
    assert done.exit_code == 1
    run = "results/tiny/default"
    command = f"snakemake --cores all --forcerun {run}/{target} -- {run}/report.html"
    assert done.stdout.endswith(f"\nto rebuild:\ncd {base.parents[2]} && {command}\n")
    assert done.stdout.count("\n") == 3


def test_a_damaged_manifest_has_to_go_first(base):
    flip(base / "images.parquet")
    run = "results/tiny/default"
    command = f"snakemake --cores all --forcerun {run}/images.parquet -- {run}/report.html"
    assert call(base).stdout.endswith(f"cd {base.parents[2]} && rm -f {run}/images.parquet && {command}\n")


def test_the_command_is_that_of_the_last_record_and_is_quoted(base, monkeypatch):
    home = base.parents[2] / "my photos"
    home.mkdir()
    base.parents[1].rename(home / "results")
    folder = home / "results" / "tiny" / "default"
    record = json.loads(folder.joinpath("report.json").read_text())
    record |= {"command": "snakemake --cores all --configfile 'my settings.yaml'", "end": "2999-01-01T00:00:00+00:00"}
    folder.joinpath("report.json").write_text(json.dumps(record))
    folder.joinpath("scenes.png").unlink()
    run = "results/tiny/default"
    command = f"{record['command']} --forcerun {run}/scenes.png -- {run}/report.html\n"
    assert call(folder).stdout.endswith(f"cd '{home}' && {command}")
    monkeypatch.chdir(home)
    assert call(Path(run)).stdout.endswith(f"to rebuild:\n{command}")


def test_without_a_report_only_what_is_there_is_rebuilt(base):
    for name in ("report.html", "scenes.png", "report.json"):
        base.joinpath(name).unlink()
    flip(base / "patches.parquet")
    target = "results/tiny/default/patches.parquet"
    assert call(base).stdout.endswith(f" --forcerun {target} -- {target}\n")


def test_a_command_with_many_targets_is_cut_and_says_so(base, monkeypatch):
    monkeypatch.setattr("cutsew.provenance.verification.MOST_TARGETS", 2)
    monkeypatch.setattr("cutsew.commands.verify.MOST_TARGETS", 2)
    for name in ("history.csv", "model.yaml", "patches.parquet"):
        base.joinpath(name).unlink()
    out = call(base).stdout
    assert "\nto rebuild (1 more remain after it; run verify again):\n" in out and "forcerun" in out
    assert "patches" not in out.splitlines()[-1]
