"""The audit's numbers, held against those worked out from the Zarrs with plain xarray, and on paper."""

import json

import numpy as np
import pandas as pd
import pytest
import typer
import xarray
from audited_run import (
    ALPHA,
    EPOCHS,
    PASSES,
    make_base,
    make_corrections,
    make_embeddings,
    make_labels,
    make_logits,
    make_variant,
    measure,
)
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sewing_world import CLASSES, make_world
from typer.testing import CliRunner

from cutsew.audit.image import image_audit
from cutsew.audit.run import Run, Slice
from cutsew.audit.summary import Tally, _degenerate, class_audit, summary
from cutsew.commands.audit import audit
from cutsew.config.method import SewConfig
from cutsew.errors import UserError
from cutsew.method.crops import Square
from cutsew.method.fuse import WHOLE, fuse, suppressed_crops
from cutsew.method.sew import plan
from cutsew.provenance.record import Record
from cutsew.reporting.cards import Crops
from cutsew.stages.override import override
from cutsew.stages.score import score
from cutsew.storage import predictions
from cutsew.storage.manifest import read_manifest
from cutsew.training.sewing_plan import read_training_images
from cutsew.training.sewn_dataset import SewnDataset

HELD_OUT = "i01"


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return make_base(tmp_path_factory.mktemp("audit"))


@pytest.fixture(scope="module")
def other(base):
    return make_variant(base)


def call(*arguments):
    app = typer.Typer()
    app.command()(audit)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def z_of(folder, name, array="z"):
    return xarray.open_zarr(folder / f"{name}.zarr", consolidated=False)[array]


def p_of(z):
    return 1 / (1 + np.exp(-np.asarray(z, dtype=np.float64)))


def of(told, name):
    return next(row for row in told["classes"] if row["class"] == name)


# One image


def test_a_image_by_hand(base):
    result = image_audit(Run(base), "i00")
    ant, bee = of(result, "ant"), of(result, "bee")
    assert ant["zero_shot"]["logit"] == 1.0 and ant["zero_shot"]["probability"] == pytest.approx(0.731059, abs=1e-6)
    assert ant["best_crop"]["pass"] == 2 and ant["best_crop"]["logit"] == pytest.approx(1.08)
    assert ant["best_crop"]["suppressed"]["logit"] == pytest.approx(0.98)  # 1.08 - 0.1 is less than 1
    assert ant["winner"] == "whole" and ant["fused"]["logit"] == 1.0
    assert ant["held_back"] == [2, 0]  # 1.08 and 1.05 beat 1 without alpha; 0.2 does not
    assert bee["winner"] == 1 and bee["fused"]["logit"] == pytest.approx(2.4) and bee["held_back"] == []
    # Eq. 9 lifts the surest class alone: sqrt(S(2.4)) = 0.957704, whose logit is 3.119772
    assert bee["corrected"] and bee["pseudo"]["probability"] == pytest.approx(p_of(2.4) ** 0.5)
    assert bee["pseudo"]["logit"] == pytest.approx(np.log(p_of(2.4) ** 0.5 / (1 - p_of(2.4) ** 0.5)), abs=1e-5)
    assert not ant["corrected"] and ant["pseudo"] == ant["fused"]
    assert result["labels"]["zero_shot"] == ["ant"] and result["labels"]["fused"] == ["bee", "ant"]


@pytest.mark.parametrize("name", ["i00", "i05", HELD_OUT])
def test_every_number_of_a_image_is_the_zarrs(base, name):
    result = image_audit(Run(base), name, only=None)
    zero_shot, crops = (z_of(base, "logits", part).sel(image=name) for part in ("zero_shot", "crops"))
    fused, winner = z_of(base, "fused").sel(image=name), z_of(base, "fused", "winner").sel(image=name)
    pseudo = z_of(base, "pseudo").sel(image=name)
    for row in result["classes"]:
        here = {"class": row["class"]}
        assert row["zero_shot"]["logit"] == float(zero_shot.sel(here))
        column = crops.sel(here).values
        assert row["best_crop"]["pass"] == column.argmax() and row["best_crop"]["logit"] == column.max()
        assert row["best_crop"]["suppressed"]["logit"] == pytest.approx(column.max() - ALPHA, abs=1e-6)
        best = max(float(zero_shot.sel(here)), float(column.max() - np.float32(ALPHA)))
        assert row["fused"]["logit"] == float(fused.sel(here)) == pytest.approx(best, abs=1e-6)
        assert row["winner"] == ("whole" if winner.sel(here) == WHOLE else int(winner.sel(here)))
        beaten = np.flatnonzero((column > float(zero_shot.sel(here))) & (int(winner.sel(here)) == WHOLE))
        assert sorted(row["held_back"]) == beaten.tolist()
        assert row["pseudo"]["logit"] == float(pseudo.sel(here))
        assert row["pseudo"]["probability"] == pytest.approx(p_of(pseudo.sel(here)))
        last, key = ("scores", "student") if name == HELD_OUT else ("refined", "refined")
        z = float(z_of(base, last).sel(image=name, **here))
        assert row[key]["logit"] == z
        if key == "refined":
            moved = pytest.approx(z - float(pseudo.sel(here)), abs=1e-6)
            assert row["em"] == {"from": "pseudo", "moved_logit": moved, "corrected_again": False}
        truth = pd.read_parquet(base / "truth.parquet").set_index("id").loc[name, row["class"]]
        assert row["truth"] == ("present" if truth else "absent")
    assert ("refined" in result["labels"]) == (name != HELD_OUT)


@pytest.mark.parametrize(
    ("rule", "winner", "held", "counts_as"),
    [  # S(1) = 0.731059, S(1.05) = 0.740775, S(1.08) = 0.746494, S(0.95) = 0.721115
        ({"space": "probability", "alpha": 0.1}, "whole", [2, 0], 0.646494),
        ({"space": "probability", "alpha": 0.0}, 2, [], 0.746494),
        ({"rule": "gated", "gate": 0.02}, "whole", [2, 0], 0.746494),
        ({"rule": "gated", "gate": 0.01}, 2, [], 0.746494),
        ({"rule": "gated", "gate": 0.008}, 0, [2], 0.746494),
        ({"alpha": 0.1, "passes": 1}, "whole", [0], 0.721115),
        ({"rule": "mean"}, 2, [], 0.746494),
        ({"rule": "cdul", "zeta": 0.5}, 2, [], 0.746494),
        # the softmax anew: crop 2 has 0.746494 / (0.746494 + 0.268941 + 0.005486) = 0.731196, its logit less 0.1
        ({"rule": "soft", "soften": 1.0, "alpha": 0.1}, "whole", [], 0.711093),
        # crop 0 is far less sure of ant than of bee; of crops 0 and 2, whose logits differ little, 2 stands out more
        ({"rule": "standard"}, 2, [], 0.746494),
    ],
)
def test_other_rules_of_fusion_by_hand(tmp_path, rule, winner, held, counts_as):
    base = make_world(tmp_path / "default")
    make_logits(base)
    make_labels(base, base, **rule)
    ant = of(image_audit(Run(base), "i00"), "ant")
    assert ant["winner"] == winner and ant["held_back"] == held
    assert ant["best_crop"]["suppressed"]["probability"] == pytest.approx(counts_as, abs=1e-6)
    assert call(base, "--image", "i00").exit_code == 0


def test_crops_that_are_not_stored_are_scored_again(tmp_path):
    """Audit and cards of a run with `score.keep: none` equal those of a run that stores all crops' logits."""
    told, shown = [], []
    for keep in ("all", "none"):
        base = make_world(tmp_path / keep / "default")
        make_embeddings(base)
        settings = {"score": {"epsilon": 1e-6, "keep": keep}, "fuse": {"rule": "cdul"}}
        score(base / "views.zarr", base / "text.zarr", base / "logits.zarr", settings)
        make_labels(base, base, rule="cdul", zeta=0.5)
        run = Run(base)
        told.append(image_audit(run, "i00"))
        crops = Crops(base / "fused.zarr", base / "logits.zarr", base / "views.zarr")
        shown.append(crops.read(["i03", "i00"], np.zeros((2, len(CLASSES)))))
    assert json.dumps(told[0]["views"]) == json.dumps(told[1]["views"]) and len(told[0]["views"]) == 1 + PASSES
    assert json.dumps(told[0]["classes"]) == json.dumps(told[1]["classes"])
    assert shown[0] == shown[1] and any(each for each in shown[0])


@pytest.fixture(scope="module")
def corrected(tmp_path_factory):
    """A run of which a human corrected a training image, i00, and a held-out one, i01."""
    base = make_base(tmp_path_factory.mktemp("corrected"))
    make_corrections(base, "i00,cat,1,Ada,", "i00,bee,0,Ada,", f"{HELD_OUT},ant,1,Bo,")
    override(
        base / "images.parquet",
        base / "pseudo.zarr",
        base / "corrections.parquet",
        base / "overridden.zarr",
        {"score": {"epsilon": 1e-6}},
    )
    return base


def test_what_a_human_set_is_told(corrected):
    base, held_out = corrected, HELD_OUT
    result = image_audit(Run(base), "i00")
    assert {row["class"]: row["by_hand"] for row in result["classes"]} == {
        "ant": None,
        "bee": "absent",
        "cat": "present",
    }
    assert of(result, "cat")["final"]["probability"] == pytest.approx(1 - 1e-6)
    assert "cat" in result["labels"]["final"] and "bee" not in result["labels"]["final"]
    assert "13.82 (1.00)!" in (lines := call(base, "--image", "i00").stdout) and "! set by a human" in lines
    result = image_audit(Run(base), held_out)
    assert of(result, "ant")["by_hand"] == "present" and "ant" in result["labels"]["final"]
    assert "overridden" not in result["labels"]


def test_final_labels_stand_in_the_table_of_stages(corrected):
    base = corrected
    result = summary(Run(base))
    rows = {(row["stage"], row["split"]): row for row in result["stages"]}
    refined, final = rows["refined", "train"], rows["final", "train"]
    assert final["labels"] - refined["labels"] == final["added"] - final["removed"]
    assert final["added"] + final["removed"] <= 2 and final["mAP"] is None
    assert ("final", "test") in rows and "2 labels of training images corrected" in result["corrections"]
    assert "final: the last stage's labels with manual corrections, excluded from metrics" in call(base).stdout


def test_a_humans_labels_are_marked_among_a_classs_images(corrected):
    base, held_out = corrected, HELD_OUT
    result = class_audit(Run(base), "ant", 20)
    rows = {(row["stage"], row["split"]): row for row in result["stages"]}
    first = rows["final", "test"]["strongest"][0]
    assert (first["image"], first["by_hand"]) == (held_out, "present")
    assert all("by_hand" not in image for image in rows["student", "test"]["strongest"])
    assert f"{held_out} 1.000!" in call(base, "--class", "ant", "--top", "20").stdout
    gone = class_audit(Run(base), "bee", 20)["stages"]
    missed = next(row["missed"] for row in gone if (row["stage"], row["split"]) == ("final", "train"))
    assert {image["image"] for image in missed if image.get("by_hand") == "absent"} == {"i00"}


def test_corrections_that_the_report_no_longer_reads_are_no_longer_the_runs(tmp_path):
    base = make_base(tmp_path)
    make_corrections(base, "i00,cat,1,Ada,")
    assert len(Run(base).corrections) == 1
    old = Record("report", 1, {}, [base / "images.parquet"], start="2020-01-01T00:00:00.000+00:00")
    old.write(base / "report.json", {"report.html": ""})
    assert len(Run(base).corrections) == 1  # read after the report was written, as by `snakemake labels`
    Record("report", 1, {}, [base / "images.parquet"]).write(base / "report.json", {"report.html": ""})
    assert Run(base).corrections is None and Run(base).final is None
    assert summary(Run(base))["corrections"] is None


def test_what_evaluate_did_not_read_is_of_earlier_settings(corrected):
    base = corrected
    assert base.joinpath("overridden.zarr").exists()  # made after evaluate ran, which did not read it
    assert "overridden" not in Run(base).outcomes


def test_every_view_is_there_with_its_box(base):
    views = image_audit(Run(base), "i05", top=2)["views"]
    assert [view["view"] for view in views] == ["whole", 0, 1, 2]
    assert views[0]["box"] is None and [view["box"] for view in views[1:]] == [[k, 5, k + 10, 15] for k in range(3)]
    assert [view["flipped"] for view in views[1:]] == [False, True, False]
    for view in views[1:]:
        z = z_of(base, "logits", "crops").sel(image="i05").values[view["view"]]
        order = np.argsort(-z)[:2]
        assert [best["class"] for best in view["top"]] == [CLASSES[c] for c in order]
        assert [best["logit"] for best in view["top"]] == z[order].tolist()


def test_the_classes_of_a_image_can_be_one(base):
    assert [row["class"] for row in image_audit(Run(base), "i00", only="cat")["classes"]] == ["cat"]


def test_sewing_is_what_the_training_did(base):
    train = read_manifest(base / "images.parquet", split="train")
    training = read_training_images(train, base / "patches.parquet")
    dataset = SewnDataset(training, SewConfig(), Square(16, "bicubic"), 9, strong=False, skip_plain=True, workers=0)
    ids = train["id"].tolist()
    pairs = {(e, place): dataset[e, place].sources.tolist()[1:] for e in range(EPOCHS) for place in range(len(ids))}
    seen = 0
    for place, name in enumerate(ids):
        sewn = image_audit(Run(base), name)["sewn"]
        own_values = {(row["epoch"], ids.index(o["image"])) for row in sewn["as_background"] for o in row["overlays"]}
        assert own_values == {(e, other) for e in range(EPOCHS) for other in pairs[e, place] if other != place}
        onto = {(row["epoch"], ids.index(row["background"])) for row in sewn["as_overlay"]}
        assert onto == {key for key, others in pairs.items() if place in others and key[1] != place}
        seen += len(onto)
        for row in sewn["as_overlay"]:
            available = ids.index(row["background"])
            how = {name: value for name, value in SewConfig().model_dump().items() if name != "kind"}
            drawn = plan(
                available,
                training.digests[available],
                training.paste_pool,
                training.sizes,
                seed=9,
                epoch=row["epoch"],
                **how,
            )
            assert row["box"] in drawn.boxes[drawn.overlays == place].tolist()
    assert seen > 3


def test_fewer_epochs_can_be_looked_through(base):
    sewn = image_audit(Run(base), "i00", epochs=1)["sewn"]
    assert sewn["epochs_looked_through"] == 1 and sewn["epochs"] == EPOCHS
    assert {row["epoch"] for row in sewn["as_background"] + sewn["as_overlay"]} == {0}


def test_the_places_in_the_patch_set(base):
    table = pd.read_parquet(base / "patches.parquet")
    for name in table["image"].unique():
        result = image_audit(Run(base), name)["patches"]
        rows = table[table["image"] == name]
        assert [(p["class"], p["rank"], p["score"], p["of"]) for p in result] == [
            (row["class"], row["rank"], row["score"], 2) for _, row in rows.iterrows()
        ]
    (name,) = read_manifest(base / "images.parquet", split="test")["id"][:1]
    assert image_audit(Run(base), name)["patches"] == [] and image_audit(Run(base), name)["sewn"] is None


@given(
    arrays.arrays(np.int64, (4, 2, 3), elements=st.integers(-8, 8)).map(lambda z: z.astype(np.float32) / 4),
    st.integers(0, 6).map(lambda n: n / 4),
)
def test_a_crop_is_held_back_where_alpha_alone_decides(z, alpha):
    winner, free = (fuse(z[0], z[1:], a, "logit", 1e-6)[1] for a in (alpha, 0.0))
    held = suppressed_crops(z[0], z[1:], winner)
    assert (held.any(axis=0) == (winner != free)).all()
    surest = np.take_along_axis(held, np.maximum(free, 0)[None].astype(np.int64), axis=0)[0]
    assert surest[winner != free].all()


# The stages and the classes


def test_added_and_removed_labels_are_those_of_the_zarrs(base):
    result = {(row["stage"], row["split"]): row for row in summary(Run(base))["stages"]}
    assert list(result) == [
        *((stage, "train") for stage in ("zero_shot", "fused", "pseudo", "refined")),
        *((stage, "test") for stage in ("zero_shot", "fused", "student", "reference_zero_shot")),
    ]
    train = read_manifest(base / "images.parquet", split="train")["id"].tolist()
    names = [("logits", "zero_shot"), ("fused", "z"), ("pseudo", "z"), ("refined", "z")]
    named = [p_of(z_of(base, name, part).sel(image=train)) >= 0.5 for name, part in names]
    crop = z_of(base, "fused", "winner").sel(image=train).values != WHOLE
    for stage, now, before in zip(("fused", "pseudo", "refined"), named[1:], named, strict=False):
        row = result[stage, "train"]
        assert row["added"] == (now & ~before).sum() and row["removed"] == (before & ~now).sum()
        assert row["labels"] == now.sum() and row["from_crops"] == (now & crop).sum()
        assert row["without_labels"] == (~now).all(axis=1).sum()
    assert result["fused", "train"]["added"] > 0 and result["refined", "train"]["removed"] > 0
    assert result["zero_shot", "train"]["added"] is None and result["student", "test"]["from_crops"] is None


def test_measures_are_those_of_evaluate(base):
    table = pd.read_csv(base / "metrics.csv").set_index(["stage", "split"])
    for row in summary(Run(base))["stages"]:
        assert row["mAP"] == pytest.approx(table.loc[(row["stage"], row["split"]), "mAP"])
        assert row["labels_per_image"] == pytest.approx(
            table.loc[(row["stage"], row["split"]), "labels_per_image"], rel=1e-5
        )
        assert row["confidence"] == pytest.approx(table.loc[(row["stage"], row["split"]), "confidence"], abs=1e-5)


def tally(z, before=None):
    result = Tally.empty(len(z[0]))
    result.add(Slice([], np.float32(z), None if before is None else np.float32(before), None), 0.5, 0.5)
    return result


def test_a_tally_by_hand():
    result = tally([[2, -1], [-1, -1], [0, 3]], before=[[2, 1], [1, -1], [-1, 3]])
    assert (result.images, result.labeled.tolist(), result.none, result.every) == (3, [2, 1], 1, 1)
    assert (result.added, result.removed) == (1, 2)


@pytest.mark.parametrize(
    ("z", "said"),
    [
        ([[-1, -2], [-2, -1]], ["not one image has a label"]),
        ([[1, -2], [-1, -3]], ["1 of 2 classes (b) in no image"]),
        ([[1, -2], [2, 1]], ["1 of 2 classes (a) in every image", "1 of 2 images have every class as a label"]),
        ([[1, 1], [-1, 2]], ["in every", "every class", "1 of 2 images have one and the same probability"]),
        ([[1, -2], [1, 3], [1, 1]], ["in every", "every class", "same", "1 of 2 classes (a) with one and the same"]),
        ([[np.nan, np.nan], [1, -1], [-1, 1]], ["1 of 3 images have no finite labels"]),
        ([[1, -1], [-1, 1]], []),
    ],
)
def test_degenerate_labels_are_warned_about(z, said):
    warned = list(_degenerate(tally(z), ["a", "b"]))
    assert len(warned) == len(said) and all(part in text for part, text in zip(said, warned, strict=True))


def test_the_images_of_a_class_are_ranked_as_the_zarr_is(base, monkeypatch):
    monkeypatch.setattr(predictions, "IMAGES_AT_ONCE", 3)  # several slices, the last one not full
    result = {(row["stage"], row["split"]): row for row in class_audit(Run(base), "bee", top=2)["stages"]}
    for name, stage in (("fused", "fused"), ("refined", "refined")):
        train = read_manifest(base / "images.parquet", split="train")["id"].tolist()
        z = z_of(base, name).sel({"class": "bee"}).sel(image=train).to_series().sort_values(ascending=False)
        labeled, rest = z[z >= 0], z[z < 0]
        row = result[stage, "train"]
        assert row["labeled"] == len(labeled) > 2 and row["images"] == len(train)
        assert [one_image["image"] for one_image in row["strongest"]] == labeled.index[:2].tolist()
        assert [image["logit"] for image in row["strongest"]] == labeled.iloc[:2].tolist()
        assert [image["image"] for image in row["weakest"]] == labeled.index[::-1][:2].tolist()
        assert [image_name["image"] for image_name in row["missed"]] == rest.index[:2].tolist()
    assert {image["truth"] for image in result["fused", "train"]["strongest"]} <= {"present", "absent"}


# Runs of other kinds


def test_a_variant_is_read_from_where_its_parts_are(base, other):
    run = Run(other)
    assert run.path("fused.zarr") == base / "fused.zarr"  # not the one that lies about in its folder
    assert run.path("pseudo.zarr") == other / "pseudo.zarr"
    result = image_audit(run, "i00")
    assert (
        of(result, "ant")["fused"]["logit"] == 1.0 and of(result, "ant")["corrected"] and of(result, "bee")["corrected"]
    )
    assert result["correction"]["beta"] == 2 and result["sewn"]["as_background"]
    assert set(summary(run)["elsewhere"]) >= {"fused.zarr", "images.parquet", "logits.zarr", "patches.parquet"}


def test_files_of_the_user_are_no_other_runs(other, tmp_path, monkeypatch):
    run, local_values = Run(other), tmp_path / "audit.csv"
    local_values.touch()
    monkeypatch.setitem(run._places, "audit.csv", local_values)
    assert (
        run.path("audit.csv") == local_values and "audit.csv" not in run.elsewhere() and "fused.zarr" in run.elsewhere()
    )


def test_chunk_files_of_a_zarr_are_not_listed(base):
    places = Run(base)._places
    assert places["views.zarr"] == base / "views.zarr"
    assert not [path for path in places.values() if base / "views.zarr" in path.parents]


def test_scores_made_elsewhere_without_truth_or_student(tmp_path):
    base = make_world(tmp_path / "results" / "tiny" / "default")
    base.joinpath("patches.parquet").unlink()
    make_logits(base, unscored=True)
    make_labels(base, base)
    measure(base, base, student=False, truth=False)
    result = image_audit(Run(base), "i00")
    assert result["truth"] is None and result["sewn"] is None and result["patches"] == []
    assert all(view["box"] is None for view in result["views"]) and len(result["views"]) == 4
    assert image_audit(Run(base), HELD_OUT)["views"] == [] and image_audit(Run(base), HELD_OUT)["labels"] == {}
    rows = summary(Run(base))["stages"]
    assert "refined" not in {row["stage"] for row in rows} and all(row["mAP"] is None for row in rows)
    assert "zero_shot, test: 1 of 3 images have no finite labels" in summary(Run(base))["warnings"]
    for options in ((), ("--image", "i00"), ("--image", HELD_OUT), ("--class", "bee"), ("--class", "bee", "--json")):
        assert call(base, *options).exit_code == 0


def test_reference_students_stand_beside_the_method(base, other):
    for folder in (base, other):
        result = image_audit(Run(folder), HELD_OUT)
        scores = z_of(base / "references" / "zero_shot", "scores").sel(image=HELD_OUT)
        for row in result["classes"]:
            assert row["reference_zero_shot"]["logit"] == float(scores.sel({"class": row["class"]}))
            assert row["reference_zero_shot"] != row["student"]
    assert "reference_zero_shot" not in image_audit(Run(base), "i00")["labels"]
    assert ("reference_zero_shot", "test") in {(r["stage"], r["split"]) for r in summary(Run(base))["stages"]}
    assert Run(base).path("refined.zarr") == base / "refined.zarr"  # not the reference's


# The command


@pytest.mark.parametrize(
    ("options", "made"),
    [
        ((), summary),
        (("--image", "i00"), lambda run: image_audit(run, "i00")),
        (("--image", "i00", "--class", "bee", "--top", "1"), lambda run: image_audit(run, "i00", "bee", 1)),
        (("--class", "bee"), lambda run: class_audit(run, "bee")),
    ],
)
def test_json_says_the_same(base, options, made):
    done = call(base, *options, "--json")
    assert json.loads(done.stdout) == json.loads(json.dumps(made(Run(base))))


def test_the_story_of_a_image_as_text(base):
    text = call(base, "--image", "i00").stdout
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "ant 1.00 (0.73) 2 1.08 (0.75) 0.98 (0.73) 1.00 (0.73) whole 2, 0" in lines
    assert "bee -3.00 (0.05) 1 2.50 (0.92) 2.40 (0.92) 2.40 (0.92) crop 1 -" in lines
    assert any(line.startswith("1 1 0 11 10 flipped bee 0.92") for line in lines)
    assert "read for the audit only" in text and "3.12 (0.96)*" in text


def test_the_other_tables_as_text(base, other):
    text = call(base).stdout
    assert "from crops" in text and "against true labels that were read for measuring only" in text
    assert "read from other runs' folders" not in text and f"{base / 'fused.zarr'}" in call(other).stdout
    text = call(base, "--class", "bee", "--top", "1").stdout
    assert "strongest not labeled" in text and "read for this audit only" in text


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--image", "i0x"), "--image: i0x is not an image of default; did you mean i10 or i09 or i08?"),
        (("--image", "\udcff"), "--image: \\udcff is not an image of default; there are i00, i01, i02, ..."),
        (("--image", "zebra"), "--image: zebra is not an image of default; there are i00, i01, i02, ..."),
        (("--class", "bees"), "--class: bees is not a class of default; did you mean bee?"),
        (("--image", "i00", "--class", "bees"), "did you mean bee?"),
    ],
)
def test_what_is_not_there_is_named_with_what_is_near(base, options, said):
    error = call(base, *options).exception
    assert isinstance(error, UserError) and said in str(error) and "\n" not in str(error)


@pytest.mark.parametrize("name", ["defaul", "", "..", "references"])
def test_what_is_no_run_is_refused_in_one_line(base, name):
    error = call(base.parent / name).exception
    assert isinstance(error, UserError) and "name a run's" in str(error) and "\n" not in str(error)
    assert name == "references" or str(base) in str(error)


def test_settings_of_another_version_are_refused(base, tmp_path):
    record = base / "fused.json"
    was = record.read_text()
    record.write_text(json.dumps(json.loads(was) | {"settings": {"fuse": {"rule": "unheard of"}}}))
    error = call(base, "--image", "i00").exception
    record.write_text(was)
    assert isinstance(error, UserError) and "the fuse of its record is of another version" in str(error)


def test_plans_are_not_drawn_from_other_patches_than_were_pasted(base):
    path = base / "patches.parquet"
    was = path.read_bytes()
    pd.read_parquet(path).iloc[1:].to_parquet(path)
    try:
        error = call(base, "--image", "i00").exception
    finally:
        path.write_bytes(was)
    assert isinstance(error, UserError) and "not the file that training pasted from" in str(error)


def test_a_lost_artifact_is_warned_of(base):
    folder = base / "refined.zarr"
    folder.rename(base / "elsewhere")
    try:
        result = summary(Run(base))
    finally:
        (base / "elsewhere").rename(folder)
    assert result["warnings"][0].startswith("refined.zarr: a record names it and it is not there")
