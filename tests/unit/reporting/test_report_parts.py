"""The report's tables, cards, maps and charts, each on its own."""

import re
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from report_run import add_crops, write_maps
from synthetic_run import CLASSES, make_run, write_zarr

from cutsew.method.score import sigmoid
from cutsew.reporting import heatmaps as tsne_module
from cutsew.reporting.cards import Crop, Crops, Label, gather
from cutsew.reporting.charts import BeforeAfter, calibration, labels_per_image, per_class, training, values
from cutsew.reporting.content import Tables
from cutsew.reporting.heatmaps import (
    FAINT,
    STRONG,
    activation_maps,
    cooccurrence,
    first_classes,
    layout,
    overlaid,
    spread,
    tsne,
)
from cutsew.reporting.page import gallery_data, source
from cutsew.reporting.page_tables import (
    MOST_ROWS,
    MOST_VALUES,
    headlines,
    shortened,
    split_apart,
    stage_grids,
    thresholds_grid,
)
from cutsew.reporting.repeated_stages import without_repeats
from cutsew.reporting.run_data import Labels, Pairs, Run, tally
from cutsew.storage.manifest import read_manifest
from cutsew.storage.predictions import open_predictions
from cutsew.storage.result_tables import RunThresholds, Thresholds

METRICS = pd.DataFrame(
    [
        {"stage": "zero_shot", "split": "train", "images": 1200, "mAP": 54.61},
        {"stage": "zero_shot", "split": "test", "images": 400, "mAP": 55.82},
        {"stage": "student", "split": "test", "images": 400, "mAP": 77.28},
        {"stage": "reference_supervised", "split": "test", "images": 400, "mAP": 88},
    ]
).assign(
    with_truth=1, OF1=60.04, CP=99.25, top3_CP=39.5, inversions=875376.0, labels_per_image=0.988, new=1.0, empty=None
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    make_run(folder)
    add_crops(folder)
    return folder


@pytest.fixture(scope="module")
def run(folder):
    names = ("logits", "fused", "pseudo", "refined", "scores")
    outcomes = open_predictions({name: folder / f"{name}.zarr" for name in names})
    stages = {"train": ("zero_shot", "fused", "pseudo", "refined"), "test": ("zero_shot", "fused", "student")}
    metrics = pd.DataFrame([{"stage": s, "split": split} for split, result in stages.items() for s in result])
    return Run(read_manifest(folder / "images.parquet"), outcomes, metrics, RunThresholds(), folder / "truth.parquet")


class TestGrids:
    def test_main_columns_come_first_and_fit(self):
        main, threshold, few, rest = stage_grids(METRICS)
        assert main.heads == ("stage", "split", "images", "mAP", "OF1", "labels per image")
        assert main.rows[0] == ("zero-shot", "train", "1,200", "54.6", "60.0", "0.99")
        assert main.rows[-1][0] == "reference: true labels"
        assert threshold.heads[2:] == ("CP", "OF1")
        assert few.caption == "Precision and recall of the 3 likeliest classes of an image"
        assert few.heads[2:] == ("top3 CP",)
        assert rest.heads[2:] == ("inversions", "new")
        assert rest.rows[0][2:] == ("875,376", "1.0")

    def test_splits_stand_side_by_side(self):
        train, test = split_apart(stage_grids(METRICS)[0])
        assert train.heads == test.heads == ("stage", "mAP", "OF1", "labels per image")
        assert train.caption == "1,200 train images, in percent where not said otherwise"
        assert [row[0] for row in test.rows] == ["zero-shot", "student", "reference: true labels"]
        measured = METRICS.assign(images=[1200, 400, 300, 400])
        assert split_apart(stage_grids(measured)[0])[1].heads[:2] == ("stage", "images")

    def test_a_caption_speaks_of_percent_only_where_a_column_is_one(self):
        unmeasured = METRICS.assign(confidence=0.9)[["stage", "split", "images", "labels_per_image", "confidence"]]
        main, *_ = stage_grids(unmeasured)
        assert main.caption == "Every stage"
        train, _ = split_apart(main)
        assert train.heads == ("stage", "labels per image", "confidence (0 to 1)")
        assert train.caption == "1,200 train images"

    def test_headlines_leave_references_out(self):
        assert headlines(METRICS, "test")[0] == ("mAP, test: zero-shot to student", "55.8", "77.3", "gain")


class TestCards:
    def test_crops(self, folder, run):
        ids = ["image-014", "image-002"]
        zero_shot = sigmoid(run.read("zero_shot", ids))
        fused = write_zarr(
            folder / "other" / "fused.zarr",
            ["image-002", "image-014"],
            CLASSES,
            winner=np.array([[-1, 0, 2], [1, -1, -1]], dtype=np.int16),
        )
        result = Crops(fused, folder / "logits.zarr").read(ids, zero_shot)
        assert [sorted(each) for each in result] == [[0], [1, 2]]
        assert result[0][0] == Crop(1, pytest.approx(1 / (1 + np.exp(-1))), pytest.approx(zero_shot[0, 0]), None, False)
        assert result[1][2].number == 2

    def test_boxes(self, folder, run):
        cards = gather(run, ["image-005"], Crops(folder / "fused.zarr", folder / "logits.zarr", folder / "views.zarr"))
        for label in cards[0].labels:
            if label.crop:
                k = label.crop.number
                assert label.crop.box == (5 + 5 * k, 5, 25 - 5 * k, 20)
                assert label.crop.flipped
                assert label.crop.score == pytest.approx(1 / (1 + np.exp(-k)))

    def test_cards_come_as_asked_and_list_what_is_named_or_true(self, folder, run):
        ids = ["image-013", "image-001", "image-012"]
        cards = gather(run, ids, Crops(folder / "fused.zarr", folder / "logits.zarr"), {"image-001": {"why": ("x",)}})
        assert [card.id for card in cards] == ids
        assert [card.why for card in cards] == [(), ("x",), ()]
        for card in cards:
            z = np.stack([run.read(stage, [card.id])[0] for stage in card.stages])
            expected = {c for c in range(3) if (z[:, c] >= 0).any() or run.truth([card.id])[0, c] == 1}
            assert {label.place for label in card.labels} == expected
            last = [label.probabilities[-1] for label in card.labels]
            assert last == sorted(last, reverse=True)

    def test_marks(self):
        label = Label("cat", 0, (0.2, 0.9), (False, True), 1, None)
        assert label.marks == ("missed", "right")
        assert label.gained
        assert Label("cat", 0, (0.2, 0.9), (False, True), 0, None).marks == ("", "wrong")
        assert Label("cat", 0, (0.2, 0.9), (False, True), -1, None).marks == ("", "")

    def test_data_of_the_page(self, folder, run):
        cards = gather(run, ["image-013"], Crops(folder / "fused.zarr", folder / "logits.zarr"))
        data = gallery_data(("demo", "default"), run, cards, "d")
        first, label = data["cards"][0]["labels"][0], cards[0].labels[0]
        assert (first["c"], first["t"]) == (label.place, label.truth)
        assert first["n"] == [int(p >= 0.5) for p in label.probabilities]
        assert first["p"] == pytest.approx(label.probabilities, abs=1e-4)


class TestMaps:
    def test_overlay(self):
        image = Image.new("RGB", (8, 8), (100, 100, 100))
        mixed = np.asarray(overlaid(image, np.ones((2, 2), dtype=np.float16))).astype(float)
        brightest = np.array([252, 255, 164])  # of matplotlib's inferno
        np.testing.assert_allclose(mixed[0, 0], (1 - STRONG) * 100 + STRONG * brightest, atol=2)
        half = np.asarray(overlaid(image, np.array([[0, 0], [1, 1]]))).astype(float).sum(axis=2)
        assert (half[-1] > half[0]).all()  # the map's first row lies at the image's top
        np.testing.assert_allclose(half[0], (1 - FAINT) * 300, atol=4)

    def test_many_classes_have_one(self):
        assert spread(list("aabac"), 3) == [0, 2, 4]
        assert spread(list("aabac"), 4) == [0, 1, 2, 4]

    def test_images_that_are_not_there_are_left_out(self, tmp_path, run):
        path = write_maps(tmp_path / "maps.zarr", ["image-000", "gone"], ["cat", "dog"], ["image-000"])
        (shown,) = activation_maps(path, run)
        assert (shown.image, shown.name) == ("image-000", "cat")
        assert len({shown.plain, shown.teacher, shown.student}) == 3

    def test_first_classes(self, run):
        ids = ["image-013", "gone", "image-002"]
        best = {
            "image-013": CLASSES[int(run.read("student", ["image-013"]).argmax())],
            "image-002": CLASSES[int(run.read("refined", ["image-002"]).argmax())],
        }
        assert first_classes(run, ids) == best


class TestTsne:
    two = np.concatenate([np.eye(60)[:30] * 0.1 + np.eye(60)[58], np.eye(60)[:30] * 0.1 + np.eye(60)[59]])

    def test_keeps_groups_apart_the_same_way_each_time(self):
        places = layout(self.two)
        assert places.min() == 0
        assert places.max() == 1
        inner = np.linalg.norm(places[:30] - places[:30].mean(axis=0), axis=1).max()
        assert np.linalg.norm(places[:30].mean(axis=0) - places[30:].mean(axis=0)) > inner
        np.testing.assert_array_equal(places, layout(self.two))

    def test_few_images(self):
        assert tsne(self.two[:9], self.two[:9], ["a"] * 9) is None
        assert tsne(self.two[:10], self.two[:10], ["a"] * 10) is not None

    def test_legend_names_the_frequent_classes(self, monkeypatch):
        monkeypatch.setattr(tsne_module, "layout", lambda features: features[:, :2])
        names = [chr(ord("a") + i % 12) for i in range(58)] + ["z", "z"]
        legend = tsne(self.two, self.two, names).legend
        assert [text for _, text in legend] == [*"abcdefgh", tsne_module.OTHERS]
        assert legend[-1][0] == "muted"


class TestCharts:
    """Golden: the drawn marks, read back from the SVG."""

    ones = tally([np.array([[1.0, -1], [1, 1]])], np.array([[1, 0], [0, 1]], dtype=np.int8), 0.5)
    none = tally([np.array([[-1.0, -1], [-1, -1]])], np.array([[1, 0], [0, 1]], dtype=np.int8), 0.5)

    def bars(self, chart, color):
        """Return (width, height) of the rectangles of one color, in points."""
        paths = re.findall(rf'<path d="([^"]*)"[^>]*style="fill: var\(--{color}\)', chart.svg)
        boxes = [np.array([float(x) for x in re.findall(r"-?\d+\.?\d*", path)]).reshape(-1, 2) for path in paths]
        return [tuple(np.ptp(box, axis=0)) for box in boxes]

    def test_per_class(self):
        rows = [("zero_shot", "a", 50), ("zero_shot", "b", 60), ("student", "a", 40), ("student", "b", 90)]
        table = pd.DataFrame([{"split": "test", "stage": s, "class": c, "AP": ap} for s, c, ap in rows])
        chart = per_class(table, "test", "zero_shot", "student")
        (gained,), (missing,) = self.bars(chart, "c3"), self.bars(chart, "worse")
        before = sorted(width for width, _ in self.bars(chart, "before"))
        assert gained[0] / missing[0] == pytest.approx(3, rel=1e-3)  # +30 and -10 points
        assert before[1] / before[0] == pytest.approx(60 / 40, rel=1e-3)
        assert chart.svg.index(">a<") < chart.svg.index(">b<")  # drawn upwards: the largest gain on top
        assert "Largest gain: b, +30.0; smallest: a, -10.0" in chart.alt
        assert per_class(table, "test", "student", "student") is None

    def test_labels_per_image(self):
        chart = labels_per_image({"test": BeforeAfter("zero_shot", "student", self.none, self.ones, None)})
        heights = [height for _, height in self.bars(chart, "before")]
        assert heights[0] > 0  # all images have none
        assert max(heights[1:]) == 0
        after = [height for _, height in self.bars(chart, "after")]
        assert after[0] == 0
        assert after[1] == pytest.approx(after[2]) == pytest.approx(heights[0] / 2)
        assert "test: zero-shot 0.00, student 1.50" in chart.alt
        assert "truth" not in chart.alt

    def test_values(self):
        chart = values({"test": BeforeAfter("zero_shot", "student", self.none, self.ones, None)})
        assert "test: zero-shot -1.00, student 0.50" in chart.alt

    def test_calibration(self, monkeypatch):
        assert calibration({"zero_shot": self.none, "student": self.ones}, "test") is None  # too few for a point
        monkeypatch.setattr("cutsew.reporting.charts.LEAST", 1)
        chart = calibration({"zero_shot": self.none, "student": self.ones}, "test")
        p = 1 / (1 + np.exp(-1))
        # all at 1 - p, half of them true; and 2 of 3 true at p, 0 of 1 at 1 - p
        first, last = abs(0.5 - (1 - p)), (abs(2 - 3 * p) + (1 - p)) / 4
        assert f"zero-shot {100 * first:.1f}; student {100 * last:.1f}" in chart.alt

    def test_cooccurrence(self):
        pairs = Pairs([0, 1, 2])
        pairs.add(np.array([[1, 1, 0], [1, 0, 0], [1, 1, 0], [1, 0, 0]], dtype=bool))
        chart = cooccurrence([0, 1, 2], [0, 1, 2], {"student": pairs}, ["a", "b", "c"], "test")
        # a with b: 2 of 4; b with a: 2 of 2
        assert sorted(re.findall(r"fill-opacity: ([\d.]+)", chart.svg)) == ["0.5"]
        assert chart.svg.count("fill: var(--after)") == 2
        assert "Most often: a and b, on 2 images, 50 percent of those with a" in chart.alt
        assert cooccurrence([0, 1], [0, 1], {"student": Pairs([0, 1])}, ["a", "b"], "test") is None
        some = cooccurrence([0, 1, 2], [0], {"student": pairs}, ["a", "b", "c", "d"], "test")
        assert "Most often of the classes shown: a and b" in some.alt

    def test_training(self):
        history = pd.DataFrame({"step": range(4), "m_loss": [4.0, 3, 2, 1], "e_loss": [None, None, 0.0, 0.0]})
        assert "M-step: student from 4.000 to 1.000" in training(history).alt
        assert "E-step" not in training(history).alt
        assert training(history[["step"]]) is None


@pytest.mark.parametrize("classes", [3, MOST_ROWS, MOST_ROWS + 2])
def test_of_many_classes_the_thresholds_of_the_commonest_are_on_the_page(classes):
    labels = Labels.of(classes)
    has = np.ones((2, classes), dtype=bool)
    has[:, 1] = has[0, 2] = False
    labels.add(has)
    values = np.linspace(0, 1, classes)
    thresholds = RunThresholds(by_stage={"student": Thresholds("count", {"count": values.tolist()})})
    run = SimpleNamespace(
        classes=[f"c{c}" for c in range(classes)], stages={"test": ("student",)}, thresholds=thresholds
    )
    grid = thresholds_grid(run, {"test": labels})
    if classes <= MOST_ROWS:
        assert [row[0] for row in grid.rows] == run.classes and grid.rest == ""
    else:
        assert [row[0] for row in grid.rows] == ["c0", *run.classes[3:]]
        assert grid.rows[-1] == (f"c{classes - 1}", "1.000")
        assert "1,000 of 1,002 classes" in grid.rest and "thresholds.csv has all" in grid.rest


def test_long_settings_are_cut():
    short = {"a": [1, {"b": "x"}], "c": None}
    assert shortened(short) == short
    values = list(range(MOST_VALUES + 1_200))
    assert shortened({"classes": values})["classes"] == [*values[:MOST_VALUES], "... and 1,200 more"]
    names = shortened({str(value): [value] for value in values})
    assert len(names) == MOST_VALUES + 1
    assert names["..."] == "and 1,200 more"


@pytest.mark.parametrize("name", ["report.js", "tables.js"])
def test_script_asks_nothing_of_anybody(name):
    script = source(name)
    assert not re.search(r"fetch|XMLHttpRequest|import\(|WebSocket|innerHTML|eval\(|https?:", script)
    assert "</" not in script


class TestRepeatedStages:
    STAGES = ("zero_shot", "fused", "pseudo", "targets", "refined", "reference_supervised")

    def outcomes(self, folder, lift=0.0):
        """Write logits of two images, one of them without scores; those of pseudo are lifted in one place."""
        z = np.array([[1, 2, 3], [np.nan] * 3], dtype=np.float32)
        lifted = z.copy()
        lifted[0, 2] += lift
        values = {"zero_shot": z - 1, "fused": z, "pseudo": lifted, "targets": z + 1, "refined": z[::-1] + 1}
        names = {"zero_shot": "logits"}
        for stage, array in values.items():
            path, ids = folder / f"{names.get(stage, stage)}.zarr", ["b", "a"] if stage == "refined" else ["a", "b"]
            write_zarr(path, ids, CLASSES, **{"zero_shot" if stage == "zero_shot" else "z": array})
        return open_predictions({path.stem: path for path in folder.glob("*.zarr")})

    def tables(self):
        mass = (1.0, 1.5, 1.5, 1.2, 1.2, 1.2)
        metrics = pd.DataFrame({"stage": self.STAGES, "split": "train", "labels_per_image": mass, "remark": ""})
        pairs = [(a, b) for i, a in enumerate(self.STAGES) for b in self.STAGES[i + 1 :]]
        agree = pd.DataFrame(pairs, columns=["first", "second"]).assign(split="train", jaccard=1.0, spearman=1.0)
        confidence = metrics[["stage", "split"]].assign(top1=1)
        return Tables(metrics, pd.DataFrame(), confidence, agree, pd.DataFrame(), None)

    def test_are_left_out_and_named(self, tmp_path):
        shown, sentence = without_repeats(self.tables(), self.outcomes(tmp_path), {"train": ["a", "b"]})
        kept = ["zero_shot", "fused", "refined", "reference_supervised"]
        assert list(shown.metrics["stage"]) == list(shown.confidence["stage"]) == kept
        assert set(shown.agreement["first"]) | set(shown.agreement["second"]) == set(kept)
        assert sentence == "Left out: pseudo-labels (same as fused), targets (same as refined)."

    def test_stages_whose_values_differ_in_the_last_bit_stay_although_the_tables_do_not_tell(self, tmp_path):
        outcomes = self.outcomes(tmp_path, lift=3e-7)
        assert (outcomes["pseudo"].read(["a"]) != outcomes["fused"].read(["a"])).sum() == 1
        shown, sentence = without_repeats(self.tables(), outcomes, {"train": ["a", "b"]})
        assert "pseudo" in set(shown.metrics["stage"]) and "pseudo-labels" not in sentence
