"""An audit as tables for a terminal."""

from collections.abc import Iterator, Sequence
from itertools import zip_longest
from typing import Any

from cutsew.audit.summary import LISTS, MEASURED, JsonDict
from cutsew.storage.predictions import FINAL, REFERENCE

NOTHING = "-"
"""What stands for what is not known or does not apply."""

SET_BY_HAND = "set by a human"


def table(heads: Sequence[str], rows: Sequence[Sequence[Any]]) -> Iterator[str]:
    """Set rows as aligned columns: text to the left, numbers to the right, floats with two decimals."""
    columns = []
    for c, head in enumerate(heads):
        values = [row[c] for row in rows]
        cells = [head, *map(_cell, values)]
        width = max(map(len, cells))
        numbers = all(isinstance(value, int | float) or value is None for value in values)
        columns.append([cell.rjust(width) if numbers else cell.ljust(width) for cell in cells])
    for line in zip(*columns, strict=True):
        yield "  ".join(line).rstrip()


def summary_lines(content: JsonDict) -> Iterator[str]:
    """Draw the summary of a run."""
    classes = "1 class" if content["classes"] == 1 else f"{content['classes']} classes"
    yield f"{content['run']}: {classes}; rule {content['named_by']}"
    yield ""
    measured = [name for name in MEASURED if any(row.get(name) is not None for row in content["stages"])]
    columns = [*("stage", "split", "images"), *measured, *("labels_per_image", "confidence", "added", "removed")]
    columns += ["from_crops", "without_labels"]
    yield from table(
        [name.replace("_", " ") for name in columns], [[r.get(n) for n in columns] for r in content["stages"]]
    )
    if measured:
        yield ""
        yield f"{', '.join(measured)} in %, against true labels that were read for measuring only"
    if content["corrections"] is not None:
        yield ""
        yield (
            f"{FINAL}: the last stage's labels with manual corrections, excluded from metrics; {content['corrections']}"
        )
    if content["elsewhere"]:
        yield ""
        yield "read from other runs' folders:"
        yield from (f"  {path}" for path in content["elsewhere"].values())
    if content["warnings"]:
        yield ""
        yield from (f"warning: {text}" for text in content["warnings"])


def class_lines(content: JsonDict) -> Iterator[str]:
    """Draw the audit of a class."""
    yield f"{content['class']}; rule {content['named_by']}"
    counts = ("stage", "split", "images", "labeled", "added", "removed", "from_crops")
    yield ""
    yield from table([name.replace("_", " ") for name in counts], [[r[n] for n in counts] for r in content["stages"]])
    with_truth = any("truth" in image for row in content["stages"] for kind in LISTS for image in row[kind])
    for row in content["stages"]:
        yield ""
        yield f"{row['stage']}, {row['split']}"
        lists = [[_ranked(image) for image in row[kind]] for kind in LISTS]
        rows = list(zip_longest(*lists, fillvalue=""))
        yield from (f"  {line}" for line in table(("strongest", "weakest labeled", "strongest not labeled"), rows))
    if any("by_hand" in image for row in content["stages"] for kind in LISTS for image in row[kind]):
        yield ""
        yield f"! {SET_BY_HAND}"
    if with_truth:
        yield ""
        yield "+ true, x not true, ? not counted: true labels, read for this audit only"


def image_lines(content: JsonDict) -> Iterator[str]:
    """Draw the audit of an image."""
    image, sewn = content["image"], content["sewn"]
    yield f"{image['id']}: {image['split']}, {image['width']} x {image['height']} pixels, {image['path'] or 'no file'}"
    yield ""
    stages = [[stage, ", ".join(names) or NOTHING] for stage, names in content["labels"].items()]
    yield from table(("stage", "labels"), stages)
    if content["truth"] is not None:
        yield (
            f"true labels: {', '.join(content['truth']['present']) or NOTHING} (read for "
            f"{content['truth']['read_for']})"
        )
    yield from _views(content)
    yield from _fusion(content)
    yield from _stages(content)
    yield ""
    places = [f"{place['class']} (rank {place['rank'] + 1} of {place['of']})" for place in content["patches"]]
    yield f"patch set: {'in it for ' + ', '.join(places) if places else 'not in it'}"
    if sewn is not None:
        yield from _sewing(sewn)


def _views(content: JsonDict) -> Iterator[str]:
    yield ""
    if not content["views"]:
        yield "views: the teacher did not score this image"
        return
    yield "top predictions per view (probability); boxes are left, top, right, bottom in pixels"
    rows = [
        [
            str(view["view"]) + ("" if view["fused"] else " (not fused)"),
            _box(view["box"]) + (" flipped" if view["flipped"] else ""),
            ", ".join(f"{best['class']} {best['probability']:.2f}" for best in view["top"]),
        ]
        for view in content["views"]
    ]
    boxes = any(view["box"] for view in content["views"])
    heads = ("view", "box", "top predictions")
    kept = [0, 1, 2] if boxes else [0, 2]
    yield from table([heads[i] for i in kept], [[row[i] for i in kept] for row in rows])


def _fusion(content: JsonDict) -> Iterator[str]:
    if not content["classes"] or not content["views"]:
        return
    yield ""
    if content["fusion"]["rule"] == "tagclip":
        yield from _patches(content)
        return
    yield f"fusion: logit (probability); {_rule(content['fusion'])}"
    rows = []
    for row in content["classes"]:
        best = row["best_crop"]
        rows.append(
            [
                row["class"],
                _answer(row["zero_shot"]),
                str(best["pass"]) if best else NOTHING,
                _answer(best),
                _counts_as(row),
                _answer(row.get("fused")),
                _winner(row.get("winner", NOTHING)),
                ", ".join(map(str, row.get("held_back", []))) or NOTHING,
            ]
        )
    headings = ("class", "whole image", "best crop", "score", "in fusion", "fused", "winner", "suppressed")
    yield from table(headings, rows)


def _counts_as(row: JsonDict) -> str:
    """Show the value with which the best crop is fused; with rule standard, both standardized answers."""
    if standard := row.get("standardized"):
        return f"{standard['whole']:+.2f}, {standard['best_crop']:+.2f}"
    return _answer(row["best_crop"]["suppressed"]) if row["best_crop"] else NOTHING


def _patches(content: JsonDict) -> Iterator[str]:
    """Draw how TagCLIP's two answers were fused."""
    yield f"TagCLIP: probabilities; the region's score has weight {content['fusion']['weight']:g}; no crop was fused"
    rows = [
        [row["class"], _answer(row["zero_shot"]), row["best_patch"], row["second_look"], _answer(row.get("fused"))]
        for row in content["classes"]
    ]
    yield from table(("class", "whole image", "best patch", "second look", "fused"), rows)


def _rule(rule: JsonDict) -> str:
    """Describe how views were fused."""
    match rule["rule"]:
        case "gated":
            how = f"gate {rule['gate']:g}"
        case "mean":
            how = "of all views' probabilities"
        case "cdul":
            how = f"zeta {rule['zeta']:g}"
        case "soft":
            named = (f"{name} {rule[name]:g}" for name in ("soften", "tau", "alpha", "anchor"))
            how = f"{', '.join(named)}; all views as softened"
        case "standard":
            tau = rule["tau"]
            parts = "whole image plus best crop" if tau is None else f"soft maximum of all views, tau {tau:g}"
            how = f"{parts}; in fusion: whole image and best crop in deviations from the mean of the classes"
        case "max":
            how = f"alpha {rule['alpha']:g} on {rule['space']}s"
        case _:
            return f"rule {_rule_and_parameters(rule)}"
    return f"rule {rule['rule']}, {how}"


def _rule_and_parameters(rule: JsonDict) -> str:
    """Name a rule and its parameters."""
    parameters = (f"{name} {value:g}" for name, value in rule.items() if isinstance(value, int | float))
    return ", ".join([str(rule["rule"]), *parameters])


def _stages(content: JsonDict) -> Iterator[str]:
    """Draw what came after the fusion; the correction's classes are starred."""
    known = ("fused", "pseudo", "targets", "overridden", "refined", "student", "tiles", "ensemble", FINAL)
    stages = [stage for stage in known if any(row.get(stage) for row in content["classes"])]
    stages += [stage for row in content["classes"][:1] for stage in row if stage.startswith(REFERENCE)]
    if not stages:
        return
    rows, heads = [], ["class", *stages]
    for row in content["classes"]:
        marks = {"pseudo": "*" if row.get("corrected") else ""}
        marks |= dict.fromkeys(("overridden", FINAL), "!" if row.get("by_hand") else "")
        cells = [row["class"], *(_answer(row.get(stage)) + marks.get(stage, "") for stage in stages)]
        cells += [f"{row['em']['moved_logit']:+.3f}"] if "em" in row else []
        rows.append([*cells, row["truth"]] if content["truth"] is not None else cells)
    if em := content["classes"][0].get("em"):
        heads.append("moved by EM and corrected again" if em["corrected_again"] else "moved by EM")
    heads += ["truth (audit only)"] if content["truth"] is not None else []
    rule = content["correction"]
    yield ""
    by_hand = f"; ! {SET_BY_HAND}" if FINAL in stages else ""
    corrected = f"* changed by the correction ({_rule_and_parameters(rule)})"
    yield f"after the fusion: logit (probability); {corrected}{by_hand}"
    yield from table(heads, rows)


def _sewing(sewn: JsonDict) -> Iterator[str]:
    if not sewn["enabled"]:
        yield "sewing: none, images were trained on as they are"
        return
    looked, epochs = sewn["epochs_looked_through"], sewn["epochs"]
    many = f"{epochs} epochs" if looked == epochs else f"the first {looked} of {epochs} epochs"
    pasted = [(row["epoch"], other) for row in sewn["as_background"] for other in row["overlays"]]
    bare = sum(not row["overlays"] for row in sewn["as_background"])
    yield f"sewing: {many}, counted from 0; seed {sewn['seed']}; nothing was pasted onto it in {bare} of them"
    rows = [[epoch, "background", other["image"], _box(other["box"])] for epoch, other in pasted]
    rows += [[row["epoch"], "overlay", row["background"], _box(row["box"])] for row in sewn["as_overlay"]]
    if rows:
        yield from table(("epoch", "this image is", "the other image", "box on the background"), rows)


def _cell(value: Any) -> str:  # noqa: ANN401
    if value is None:
        return NOTHING
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def _answer(content: JsonDict | None) -> str:
    return NOTHING if content is None else f"{content['logit']:.2f} ({content['probability']:.2f})"


def _winner(view: int | str) -> str:
    return f"crop {view}" if isinstance(view, int) else view


def _box(box: Sequence[float] | None) -> str:
    return NOTHING if box is None else " ".join(f"{edge:g}" for edge in box)


def _ranked(image: JsonDict) -> str:
    mark = {"present": " +", "absent": " x", "not counted": " ?"}.get(image.get("truth", ""), "")
    return f"{image['image']} {image['probability']:.3f}{'!' if 'by_hand' in image else ''}{mark}"
