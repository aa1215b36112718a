# Helpers: what is measured and shown of a run, and what the targets ask for.


def measured(wildcards):
    """Input: what there is to measure beside the labels of the cutting stages."""
    run = wildcards.run
    found = {}
    if makes(run, "targets"):
        found["targets"] = targets(wildcards)
    if makes(run, "override") and PLAN.trains_on_corrections(run):
        found["overridden"] = overridden(wildcards)
    if makes(run, "train"):
        found["refined"] = str(PLAN.folder(run, "train") / "refined.zarr" / "zarr.json")
        found["scores"] = str(PLAN.folder(run, "predict") / "scores.zarr" / "zarr.json")
    if makes(run, "tiles"):
        found["tiles"] = str(PLAN.folder(run, "tiles") / "tiles.zarr" / "zarr.json")
    if makes(run, "ensemble"):
        folder = PLAN.folder(run, "ensemble")
        found["ensemble"] = str(folder / "ensemble.zarr" / "zarr.json")
    if makes(run, "truth"):
        found["labels"] = str(PLAN.folder(run, "truth") / "truth.parquet")
    return found


def shown(wildcards):
    """Input: what the report shows beside what was measured."""
    run = wildcards.run
    found = measured(wildcards)
    if makes(run, "corrections"):
        folder = PLAN.folder(run, "corrections")
        found["corrections"] = str(folder / "corrections.parquet")
    if makes(run, "train"):
        found["history"] = str(PLAN.folder(run, "train") / "history.csv")
        found["thresholds"] = suggested(wildcards)[0]
    if makes(run, "encode"):
        found["views"] = str(PLAN.folder(run, "encode") / "views.zarr" / "zarr.json")
    if makes(run, "explain"):
        found["maps"] = str(PLAN.folder(run, "explain") / "maps.zarr" / "zarr.json")
    return found


def last_labels(wildcards):
    """Input: the Zarrs of each split's last labels."""
    found = {**measured(wildcards), "fused": fused(wildcards)}
    found.pop("labels", None)
    train = "refined" if "refined" in found else "pseudo"
    test = [name for name in ("ensemble", "tiles", "scores", "fused") if name in found]
    if train == "pseudo":
        found["pseudo"] = pseudo(wildcards)
    return {name: found[name] for name in (train, test[0])}


def read_corrections(wildcards):
    """Input: a human's corrections, where there are any."""
    if not makes(wildcards.run, "corrections"):
        return []
    folder = PLAN.folder(wildcards.run, "corrections")
    return [str(folder / "corrections.parquet")]


def table_options(wildcards):
    """Params: what the table of labels is made from, as command-line options."""
    stages = {"scores": "student"}
    options = [
        ("--stage", f"{stages.get(name, name)}={on_disk(path)}")
        for name, path in last_labels(wildcards).items()
    ]
    options += [("--thresholds", on_disk(path)) for path in suggested(wildcards)]
    options += [
        ("--corrections", on_disk(path)) for path in read_corrections(wildcards)
    ]
    return [word for option in options for word in option]


def references(wildcards):
    """Input: the scores of the reference students."""
    return list(scores_of_references(wildcards.run).values())


def suggested(wildcards):
    """Input: the thresholds of the student's classes, where there is a student."""
    if not makes(wildcards.run, "thresholds"):
        return []
    return [str(PLAN.folder(wildcards.run, "thresholds") / "thresholds.csv")]


def measure_options(wildcards):
    """Params: what there is to measure, as command-line options."""
    options = [
        (f"--{name}", on_disk(path)) for name, path in measured(wildcards).items()
    ]
    options += [
        ("--reference", f"{kind}={on_disk(path)}")
        for kind, path in scores_of_references(wildcards.run).items()
    ]
    options += [("--thresholds", on_disk(path)) for path in suggested(wildcards)]
    return [word for option in options for word in option]


def show_options(wildcards):
    """Params: what there is to show, as command-line options."""
    return [
        word
        for name, path in shown(wildcards).items()
        for word in (f"--{name}", on_disk(path))
    ]


def of_own_runs(stage, name):
    """Name an artefact of every run of the config file, those of a sweep left out."""
    return [str(PLAN.folder(run, stage) / name) for run in OWN_RUNS]


def finished(wildcards):
    """Input of target `all`: the report and the table of labels of every run."""
    refuse_too_large(tuple(OWN_RUNS))
    return of_own_runs("report", "report.html") + of_own_runs(
        "labels_table", "labels.csv"
    )


def labelled(wildcards):
    """Input of target `labels`: the pseudo-labels of every run, and a human's corrections of them."""
    corrected = [run for run in OWN_RUNS if makes(run, "corrections")]
    tables = [
        PLAN.folder(run, "corrections") / "corrections.parquet" for run in corrected
    ]
    return of_own_runs("correct", "pseudo.zarr/zarr.json") + list(map(str, tables))
