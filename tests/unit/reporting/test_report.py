"""Stage report: a whole page that asks nothing of the network, escapes what it is given, and needs no truth."""

import base64
import hashlib
import json
import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from report_run import write_maps, write_report, write_thresholds
from synthetic_run import CLASSES, SETTINGS, make_run, write_zarr

from cutsew.errors import UserError
from cutsew.provenance.record import Record
from cutsew.reporting import page_tables
from cutsew.stages.evaluate import evaluate
from cutsew.stages.report import report
from cutsew.storage.file_digests import file_digest
from cutsew.storage.label_corrections import COLUMNS, Corrections, write_corrections
from cutsew.storage.result_tables import rule_in_words

IMAGES = 20
VOID = {"meta", "img", "link", "br", "hr", "input"}
HOSTILE = (
    "<script>alert(1)</script>",
    "</script><!--",
    "$x_1$ & \"quoted\" 'name'",
    "<img src=x onerror=alert(1)>",
    "NA",
)


class Page(HTMLParser):
    """Reads a page strictly: every element is closed in its turn."""

    def __init__(self, text):
        super().__init__()
        self.open, self.elements, self.words = [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open and "script" not in self.open:
            self.words.append(data)

    def all(self, tag):
        return [attrs for name, attrs in self.elements if name == tag]

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


def gallery_data(path):
    text = path.read_text(encoding="utf-8")
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, flags=re.DOTALL)[1])


@pytest.fixture(scope="module")
def page_path(tmp_path_factory):
    return write_report(tmp_path_factory.mktemp("results") / "demo" / "default")


@pytest.fixture(scope="module")
def page(page_path):
    return Page(page_path.read_text(encoding="utf-8"))


def test_says_what_it_is_about(page):
    assert "demo / default" in page.text
    assert "3 classes; 12 train images, 8 test images; true labels of 20 images" in page.text
    for words in ("Stages", "Charts", "Images", "How it was made", "pseudo-labels", "student", *CLASSES):
        assert words in page.text


def test_sections_are_headed_and_named(page):
    headings = [attrs["id"] for attrs in page.all("h2")]
    assert [attrs["aria-labelledby"] for attrs in page.all("section")] == headings
    assert len(page.all("h1")) == len(page.all("main")) == 1
    assert page.all("html")[0]["lang"] == "en"


def test_every_file_is_accounted_for(tmp_path, page):
    assert "Files" not in page.text  # the made-up manifest has no record
    folder = tmp_path / "results" / "demo" / "default"

    def record(where):
        left = [
            {"kind": "unreadable", "label": ".jpg", "reason": "truncated", "count": 1200},
            {"kind": "other", "label": ".<b>", "reason": "of another kind", "count": 1},
        ]
        facts = {"train": 12, "test": 8, "listed": "folder", "left": left}
        record = Record("manifest", 2, {}, [], facts)
        record.write(where / "images.json", {"images.parquet": file_digest(where / "images.parquet")})
        return {}

    shown = Page(write_report(folder, more=record).read_text(encoding="utf-8"))
    assert "1,221 files: 12 training, 8 held out, 1,200 unreadable, 1 of another kind (.<b> 1)." in shown.text
    assert "suffix reason files .jpg truncated 1,200 .<b> of another kind 1" in shown.text
    assert {"href": "#files"} in shown.all("a")


@pytest.mark.parametrize(
    ("gflop", "own", "paper"), [(0.8, "5 views (4 GFLOP)", "21 views (16.8 GFLOP)"), (None, "5 views", "21 views")]
)
def test_the_teachers_work_is_told_next_to_the_papers(tmp_path, page, gflop, own, paper):
    assert "The teacher's work" not in page.text  # the made-up views have no record

    def record(where):
        facts = {"views_per_image": 5.0, "paper_views_per_image": 21.0, "gflop_per_view": gflop}
        Record("seal", 1, {}, [], facts).write_beside(where / "views.zarr")
        return {}

    shown = Page(write_report(tmp_path / "demo" / "default", more=record).read_text(encoding="utf-8"))
    assert f"The teacher's work per image: {own}; the paper's cutting takes {paper}." in shown.text


def test_ids_are_unique_and_references_are_met(page):
    ids = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    expected = {
        attrs[key].removeprefix("#") for _, attrs in page.elements for key in ("href", "xlink:href") if key in attrs
    }
    expected |= set(re.findall(r"url\(#([^)]*)\)", " ".join(str(v) for _, a in page.elements for v in a.values())))
    assert expected <= set(ids)


def test_every_picture_has_words(page):
    images = page.all("img")
    # The cards, the easiest and the hardest of three classes, and the labeled ones of eight test images at the top.
    assert len(images) == IMAGES + 2 + 7
    assert all(attrs["alt"].startswith("Image image-") for attrs in images)
    pictures = [attrs for _, attrs in page.elements if attrs.get("role") == "img"]
    assert len(pictures) >= 5
    assert all(attrs["aria-label"] for attrs in pictures)


def test_asks_nothing_of_the_network(page, page_path):
    text = page_path.read_text(encoding="utf-8")
    assert not re.search(r"https?:|//[a-z]", re.sub(r"(base64,|sha256-)[A-Za-z0-9+/=]*", "", text))
    assert not page.all("link")
    assert [attrs.get("src") for attrs in page.all("script")] == [None, None]
    policy = page.all("meta")[1]["content"]
    script = re.search(r"<script>(.*)</script>", text, flags=re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert f"script-src 'sha256-{digest}'" in policy
    assert all(attrs["src"].startswith("data:image/jpeg;base64,") for attrs in page.all("img"))


def test_charts_take_the_page_colors(page_path):
    text = page_path.read_text(encoding="utf-8")
    drawings = "".join(re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL))
    assert "var(--after)" in drawings
    assert set(re.findall(r"#[0-9a-f]{6}\b", drawings)) <= {"#000000"}
    assert "prefers-color-scheme: dark" in text


def test_draws_the_winning_crops(page):
    frames = [attrs for attrs in page.all("rect") if attrs.get("class") == "edge"]
    assert frames
    assert {(attrs["width"], attrs["height"]) for attrs in frames} <= {
        ("25.0", "20.0"),
        ("20.0", "20.0"),
        ("15.0", "20.0"),
    }
    assert {(attrs["x"], attrs["width"]) for attrs in frames} <= {("5.0", "25.0"), ("10.0", "20.0"), ("15.0", "15.0")}


def test_shows_settings_and_digests(page, page_path):
    assert "evaluate.threshold" in page.text
    assert file_digest(page_path.with_name("metrics.csv")) in page.text
    assert "numpy" in page.text


def test_record(page_path):
    record = json.loads(page_path.with_name("report.json").read_text())
    assert record["outputs"] == {name: file_digest(page_path.with_name(name)) for name in ("report.html", "scenes.png")}
    assert "truth.parquet" in record["inputs"]


def test_scenes(page_path):
    with Image.open(page_path.with_name("scenes.png")) as scenes:
        assert scenes.width > scenes.height > 500
        assert len(scenes.convert("RGB").getcolors(10**7)) > 10


def test_same_input_same_page(page_path, tmp_path):
    other = write_report(tmp_path / "demo" / "default")
    when = re.compile(r"\d{4}-\d\d-\d\dT[\d:.+]*|[0-9a-f]{64}")
    pages = [when.sub("", path.read_text(encoding="utf-8")) for path in (page_path, other)]
    assert pages[0] == pages[1]
    assert page_path.with_name("scenes.png").read_bytes() == other.with_name("scenes.png").read_bytes()


def test_escapes_names(tmp_path):
    names = [f"{i}\"><script>alert({i})</script>' $(touch x)\u2028.jpg" for i in range(IMAGES)]
    path = write_report(tmp_path, classes=HOSTILE, names=names)
    page = Page(path.read_text(encoding="utf-8"))
    assert len(page.all("script")) == 2
    assert not any(key.startswith("on") for _, attrs in page.elements for key in attrs)
    for name in HOSTILE:
        assert name in page.text
    data = gallery_data(path)
    assert tuple(data["classes"]) == HOSTILE
    assert {card["id"] for card in data["cards"]} == set(names)
    pictures = [attrs["aria-label"] for attrs in page.all("div") if attrs.get("role") == "img"]
    assert pictures[0].startswith("Average precision of 5 classes")
    assert all(attrs["src"].startswith("data:") for attrs in page.all("img"))
    assert page.all("img")[0]["alt"].removeprefix("Image ") in names


def test_without_truth_images_and_views(tmp_path):
    path = write_report(tmp_path, labels=False, images=False, views=False)
    page = Page(path.read_text(encoding="utf-8"))
    assert "no true labels" in page.text
    for words in (
        "mAP",
        "Average precision",
        "Calibration",
        "inversions",
        "nan",
        "(right)",
        "(wrong)",
        "(missed)",
        "Truth",
    ):
        assert words not in page.text
    assert "Labels per image" in page.text
    assert not page.all("img")
    assert not [attrs for attrs in page.all("rect") if attrs.get("class") == "edge"]
    assert page.text.count("image not available") == IMAGES
    assert path.with_name("scenes.png").is_file()


def test_only_a_few_training_images(tmp_path):
    path = write_report(tmp_path, train=2, test=0)
    page = Page(path.read_text(encoding="utf-8"))
    assert len(page.all("img")) == 4 + 2
    assert "labels per image, train" in page.text


def test_without_what_evaluate_wrote(page_path, tmp_path):
    folder = page_path.parent
    given = {name: folder / f"{name}.zarr" for name in ("logits", "fused", "pseudo")}
    given |= {"images": folder / "images.parquet", "metrics": tmp_path / "metrics.csv"}
    for name in ("metrics", "per_class", "confidence"):
        shutil.copy(folder / f"{name}.csv", tmp_path)
    with pytest.raises(UserError, match=r"agreement\.csv: no such table"):
        report(tmp_path / "report.html", **given)
    for name in ("agreement", "thresholds_f1"):
        shutil.copy(folder / f"{name}.csv", tmp_path)
    with pytest.raises(UserError, match=r"metrics\.json: no such record; run"):
        report(tmp_path / "report.html", **given)


def test_thresholds_and_maps(tmp_path):
    def more(folder):
        maps = write_maps(
            folder / "maps.zarr", ["image-000", "image-013"], ["cat", "dog"], [f"image-{i:03d}" for i in range(12)]
        )
        rules = pd.read_csv(folder / "thresholds_f1.csv")
        rules.loc[0] = ["student", "test", "mixture", 8, 2.125, 61.25, *[None] * 2, 63.75, *[None] * 3]
        rules.to_csv(folder / "thresholds_f1.csv", index=False)
        return {"thresholds": write_thresholds(folder / "thresholds.csv", CLASSES), "maps": maps}

    path = write_report(tmp_path / "demo" / "default", more=more)
    page = Page(path.read_text(encoding="utf-8"))
    assert "horse 0.125 0.375 0.250" in page.text
    assert f"rule {rule_in_words('count')}" in page.text
    assert "rule split stage labels per image mean F1 CF1 mixture test student 2.12 61.2 63.8" in page.text
    assert "Where the models look" in page.text
    assert "Features before and after" in page.text
    alts = [attrs["alt"] for attrs in page.all("img")]
    assert "Where the student looks for dog in image-013" in alts
    assert {"maps.zarr", "thresholds.csv"} <= set(json.loads(path.with_name("report.json").read_text())["inputs"])


def test_without_thresholds_and_maps(page):
    for words in (
        "Decision threshold per class",
        "by each rule of thresholds",
        "Where the models look",
        "Features before and after",
    ):
        assert words not in page.text


def test_bad_thresholds(tmp_path):
    def more(folder):
        folder.joinpath("thresholds.csv").write_text("class,fixed\ncat,0.5\n")
        return {"thresholds": folder / "thresholds.csv"}

    with pytest.raises(UserError, match=r"thresholds\.csv: not a table of thresholds"):
        write_report(tmp_path, more=more)
    assert not (tmp_path / "report.html").exists()


def test_without_a_student(tmp_path):
    given = make_run(tmp_path, test=0)
    given = {name: path for name, path in given.items() if name != "refined"}
    metrics, images = tmp_path / "metrics.csv", given.pop("images")
    evaluate(images, metrics, settings=SETTINGS, **given)
    report(tmp_path / "report.html", metrics=metrics, images=images, **given)
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "pseudo-labels, gained" in page.text
    assert "Training" not in page.text
    assert "refined" not in page.text


def test_held_out_images_without_scores(tmp_path):
    """Imported scores may leave out held-out images: only the student knows them."""
    given = make_run(tmp_path)
    ids = [f"image-{i:03d}" for i in range(20)]
    z = np.where(np.arange(20)[:, None] < 12, 1.0, np.nan).astype(np.float32) * np.ones(3, dtype=np.float32)
    write_zarr(tmp_path / "logits.zarr", ids, CLASSES, zero_shot=z)
    write_zarr(tmp_path / "fused.zarr", ids, CLASSES, z=z, winner=np.full(z.shape, -1, dtype=np.int16))
    metrics, images = tmp_path / "metrics.csv", given.pop("images")
    evaluate(images, metrics, settings=SETTINGS, **given)
    report(tmp_path / "report.html", metrics=metrics, images=images, **given)
    data = gallery_data(tmp_path / "report.html")
    assert data["stages"] == {"train": ["zero_shot", "fused", "pseudo", "refined"], "test": ["student"]}
    assert {len(label["p"]) for card in data["cards"] if card["split"] == "test" for label in card["labels"]} == {1}


class TestProvenance:
    def write(self, path, inputs=(), outputs=(), settings=None, end=""):
        stage = {"images": "manifest", "scores": "predict"}.get(path.stem, path.stem)
        content = {"stage": stage, "settings": settings or {}, "inputs": dict.fromkeys(inputs, "0"), "end": end}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content | {"outputs": dict.fromkeys(outputs, "0"), "packages": {"numpy": end}}))

    def test_follows_inputs_into_other_folders(self, tmp_path):
        base, run = tmp_path / "base", tmp_path / "run"
        self.write(base / "images.json", (), ("images.parquet",), {"dataset": {"kind": "demo"}}, "1")
        self.write(base / "train.json", ("images.parquet",), ("adapter.safetensors", "refined.zarr"), end="2")
        self.write(base / "other.json", (), ("other.zarr",), end="3")
        self.write(run / "scores.json", ("../base/refined.zarr",), ("scores.zarr",), {"version": 1, "a": {"b": 2}}, "4")
        (base / "broken.json").write_text("{")
        result = page_tables.records([run / "scores.zarr" / "zarr.json", run / "nothing.csv"])
        assert [content["stage"] for content in result.values()] == ["manifest", "train", "predict"]
        assert page_tables.flat_settings(result.values()) == {"a.b": 2, "dataset.kind": "demo"}
        assert page_tables.packages(result.values()) == {"numpy": "1, 2, 4"}


# A human's corrections


ROWS = [
    ("image-001", "train", "cat", 1, "Ada", "2026-01-02"),
    ("image-001", "train", "dog", 0, "Ada", "2026-01-02"),
    ("image-013", "test", "horse", 0, "Bo", ""),
]


@pytest.fixture(scope="module")
def corrected_path(tmp_path_factory):
    def more(folder):
        table = pd.DataFrame(ROWS, columns=list(COLUMNS))
        write_corrections(folder / "corrections.parquet", Corrections(table, CLASSES))
        return {"corrections": folder / "corrections.parquet"}

    return write_report(tmp_path_factory.mktemp("corrected") / "demo" / "default", more=more)


def test_the_cards_end_in_what_a_human_said(corrected_path, page_path):
    data = gallery_data(corrected_path)
    assert data["stages"] == {split: [*s, "final"] for split, s in gallery_data(page_path)["stages"].items()}
    stated = {(image, name): present for image, _, name, present, *_ in ROWS}
    cards = {card["id"]: card for card in data["cards"]}
    assert {image for image, _ in stated} <= cards.keys()
    for name, card in cards.items():
        for label in card["labels"]:
            result = stated.get((name, CLASSES[label["c"]]))
            assert label["n"][-1] == (label["n"][-2] if result is None else result)
            assert label["p"][-1] == (label["p"][-2] if result is None else result)
        assert ("corrected by a human" in card["why"]) == (name in {image for image, _ in stated})
    first = {CLASSES[label["c"]] for label in cards["image-001"]["labels"][:2]}
    assert first == {"cat", "dog"}  # before the others, so that no limit of labels hides them


def test_the_page_says_what_corrections_led_to_and_gives_them_back(corrected_path, page):
    shown = Page(corrected_path.read_text(encoding="utf-8"))
    assert "2 labels of training images corrected, from which training starts, and 1 of held-out images" in shown.text
    assert "Set by Ada, Bo." in shown.text and "measure what the models say, not the corrected labels" in shown.text
    assert [(e["image"], e["class"], e["present"]) for e in gallery_data(corrected_path)["corrections"]] == [
        (image, name, present) for image, _, name, present, *_ in ROWS
    ]
    cells = [attrs for attrs in shown.all("td") if "hand" in attrs.get("class", "").split()]
    assert len(cells) == len(ROWS)
    assert "Corrections:" not in page.text and "by hand" not in page.text


def test_measures_and_charts_are_those_without_corrections(corrected_path, page_path):
    def charts(path):
        return re.findall(r"<figure class=.chart.*?</figure>", path.read_text(encoding="utf-8"), flags=re.DOTALL)

    for name in ("metrics.csv", "per_class.csv", "confidence.csv", "agreement.csv"):
        assert corrected_path.with_name(name).read_bytes() == page_path.with_name(name).read_bytes()
    assert charts(corrected_path) == charts(page_path) and len(charts(page_path)) > 3
    assert gallery_data(corrected_path)["digest"] != gallery_data(page_path)["digest"]
