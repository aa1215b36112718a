"""The page itself: what the template shows, put together from tables, findings and records."""

import base64
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from cutsew.data import accounting
from cutsew.reporting import page_tables
from cutsew.reporting.cards import Card
from cutsew.reporting.content import ReportContent, Tables
from cutsew.reporting.overview import find_warnings, resolved, summary_sentence, thumbnails, where_labels_are_from
from cutsew.reporting.page_tables import (
    agreement_grid,
    headlines,
    left_grid,
    rules_grid,
    split_apart,
    stage_grids,
    thresholds_grid,
)
from cutsew.reporting.photos import Photos
from cutsew.reporting.run_data import Run
from cutsew.reporting.selection import REASONS
from cutsew.reporting.style import STAGE_TITLES
from cutsew.storage.label_corrections import in_words
from cutsew.storage.result_tables import remarks

MOST_OUTPUTS = 8
"""Outputs and inputs of one record that are listed."""

MOST_LABELS = 12
"""Labels of an image that are listed."""

SCRIPTS = ("corrections.js", "tables.js", "photos.js", "report.js")
"""The page's scripts, in this order."""

STAGES_IN_A_COLUMN = 5
"""Stages whose probabilities fit a narrow card; with more, cards are wider."""


def render(
    names: tuple[str, str],
    run: Run,
    tables: Tables,
    report_content: ReportContent,
    records: Mapping[Path, dict[str, Any]],
    digest: str,
    left_out: str = "",
) -> str:
    """Return the page as HTML.

    Args:
        names: of dataset and run.
        run: that the page is about.
        tables: what evaluate wrote.
        report_content: charts, classes, maps and images.
        records: how everything was made.
        digest: of the labels shown; corrections that a browser keeps belong to it.
        left_out: which stages the tables lack and why.

    """
    environment = Environment(
        loader=PackageLoader("cutsew", "templates"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":")}
    script = "\n".join(source(name) for name in SCRIPTS)
    metrics = tables.metrics
    stages = stage_grids(metrics)
    return environment.get_template("report.html.j2").render(
        dataset=names[0],
        run=names[1],
        images=metrics.groupby("split", sort=False)["images"].first().to_dict(),
        with_truth=int(metrics.groupby("split")["with_truth"].first().sum()),
        classes=run.classes,
        named_by=run.thresholds.in_words(),
        main=run.main,
        headlines=headlines(metrics, run.main),
        found=summary_sentence(run, report_content.labels) if report_content.labels else "",
        labels_from=where_labels_are_from(run),
        thumbnails=thumbnails(report_content.cards, run.main),
        warnings=find_warnings(run, metrics, report_content.labels, records.values(), report_content.copies)
        if report_content.labels
        else [],
        resolved=resolved(records.values()),
        main_stages=split_apart(stages[0]),
        more_stages=stages[1:],
        remarks=[*remarks(metrics), *filter(None, [left_out])],
        agreement=agreement_grid(tables.agreement),
        thresholds=thresholds_grid(run, report_content.labels),
        page_rows=page_tables.PAGE_ROWS,
        rules=rules_grid(tables.rules),
        report_content=report_content,
        **files_of(records.values()),
        cost=cost_of(records.values()),
        with_corrections="by_hand" in metrics.columns,
        corrected=_describe_corrections(run, student=tables.history is not None),
        **options(run, report_content.cards),
        most_labels=MOST_LABELS,
        roomy=max((len(card.stages) for card in report_content.cards), default=0) > STAGES_IN_A_COLUMN,
        titles=STAGE_TITLES,
        data=gallery_data(names, run, report_content.cards, digest) | {"photos": report_content.photos.data()},
        photo_classes=_photo_classes(run, report_content.photos),
        trains="train" in run.stages and "refined" in run.stages["train"],
        style=Markup(source("report.css")),  # noqa: S704  # our own file
        script=Markup(script),  # noqa: S704  # our own file
        script_digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        settings=[
            (name, json.dumps(page_tables.shortened(value), ensure_ascii=False))
            for name, value in page_tables.flat_settings(records.values()).items()
        ],
        packages=page_tables.packages(records.values()),
        records=[_shown(path, content) for path, content in records.items()],
    )


def files_of(records: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what became of every file of the folder of images: a line, and a table of what the run does not hold.

    None where no record of the manifest says so.
    """
    facts = [content.get("facts", {}) for content in records if content["stage"] == "manifest"]
    if not facts or "left" not in facts[0]:
        return {"files": None, "left": None}
    return {"files": accounting.summary(facts[0]), "left": left_grid(facts[0]["left"])}


def cost_of(records: Iterable[Mapping[str, Any]]) -> str | None:
    """Say what the teacher's answers cost per image; None where no record of its views says so."""
    facts_of_records = [content.get("facts", {}) for content in records if content["stage"] == "seal"]
    if not facts_of_records or "views_per_image" not in facts_of_records[0]:
        return None
    facts = facts_of_records[0]

    def work(views: float) -> str:
        gflop = facts["gflop_per_view"]
        return f"{views:.3g} views" + ("" if gflop is None else f" ({views * gflop:,.3g} GFLOP)")

    own_views, paper = facts["views_per_image"], facts["paper_views_per_image"]
    return f"The teacher's work per image: {work(own_views)}; the paper's cutting takes {work(paper)}"


def options(run: Run, cards: list[Card]) -> dict[str, list[tuple[str, str]]]:
    """Return (value, text) of what the gallery can be filtered by: classes on its cards, stages and reasons."""
    shown = sorted({label.place for card in cards for label in card.labels[:MOST_LABELS]})
    stages = dict.fromkeys(stage for split in run.stages for stage in run.shown_stages(split))
    return {
        "class_options": [("", "any"), *((str(c), run.classes[c]) for c in shown)],
        "stage_options": [("", "any"), *((stage, STAGE_TITLES[stage]) for stage in STAGE_TITLES if stage in stages)],
        "reason_options": [("", "anything")] + [(r, r) for r in REASONS if any(r in card.why for card in cards)],
    }


def _photo_classes(run: Run, photos: Photos) -> list[tuple[str, str]]:
    """Return (value, text) of the classes that photos can be filtered by: all, with the photos that are labeled so."""
    counts = Counter(label[0] for photo in photos.shown for label in photo.labels if label[2])
    texts = (
        f"{name} ({counts[c]:,})" + (f", {photos.few[c]} held out" if c in photos.few else "")
        for c, name in enumerate(run.classes)
    )
    return [("", "any"), *((str(c), text) for c, text in enumerate(texts))]


def source(name: str) -> str:
    """Read a file that stands in the page as it is: its style or its script."""
    return (files("cutsew") / "templates" / name).read_text(encoding="utf-8").strip()


def gallery_data(names: tuple[str, str], run: Run, cards: list[Card], digest: str) -> dict[str, Any]:
    """Return what the page's script needs to know, as plain JSON values.

    Per card: id, split, why, gained, lost, bits, and per listed label its class index `c`, `p` (probabilities by
    stage), `n` (named: 0 or 1 by stage) and `t` (truth: 1, 0, -1). `corrections` are those that the run has already,
    so that what is downloaded from the page holds them too.
    """
    return {
        "dataset": names[0],
        "run": names[1],
        "digest": digest,
        "classes": run.classes,
        "stages": {split: list(run.shown_stages(split)) for split in run.stages},
        "corrections": _fed_back(run),
        "cards": [
            {"id": card.id, "split": card.split, "why": list(card.why), **dict(card.figures)}
            | {
                "labels": [
                    {"c": x.place, "p": [round(p, 4) for p in x.probabilities], "n": [int(n) for n in x.named]}
                    | {"t": x.truth}
                    for x in card.labels[:MOST_LABELS]
                ]
            }
            for card in cards
        ],
    }


def _fed_back(run: Run) -> list[dict[str, Any]]:
    if run.corrections is None:
        return []
    table = run.corrections.table
    columns = (table[name] for name in ("image", "class", "present", "by", "at"))
    rows = zip(*columns, strict=True)
    return [{"image": i, "class": c, "present": int(p), "by": by, "at": at} for i, c, p, by, at in rows]


def _describe_corrections(run: Run, *, student: bool) -> str:
    """Say how many labels a human corrected and who; empty for none."""
    if not run.corrections:
        return ""
    names = ", ".join(run.corrections.authors)
    return f"{in_words(*run.corrections.counts, student=student)}. {f'Set by {names}.' if names else ''}"


def _shown(path: Path, content: dict[str, Any]) -> dict[str, Any]:
    outputs = list(_artifacts(content["outputs"]).items())
    return {
        "file": path.name,
        "outputs": outputs[:MOST_OUTPUTS],
        "more": max(0, len(outputs) - MOST_OUTPUTS),
        "inputs": list(content["inputs"].items())[:MOST_OUTPUTS],
        "settings": json.dumps(page_tables.shortened(content["settings"]), indent=1, ensure_ascii=False),
        "facts": json.dumps(page_tables.shortened(content.get("facts", {})), indent=1, ensure_ascii=False),
        **{key: content.get(key) for key in ("stage", "version", "commit", "start", "end")},
    }


def _artifacts(outputs: Mapping[str, str]) -> dict[str, str]:
    """Return the digest of each artifact, and how many files are in a folder that has none of its own."""
    inside = Counter(name.partition("/")[0] for name in outputs if "/" in name)
    folders = {name: f"{count:,} files" for name, count in inside.items()}
    return {**folders, **{name: digest for name, digest in outputs.items() if "/" not in name}}
