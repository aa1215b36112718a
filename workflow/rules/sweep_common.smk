# Helpers of sweeps: where their variants are measured and what they are called.


def metrics_of(variant):
    """Name the measurements of a sweep's variant."""
    return str(PLAN.folder(variant.run, "evaluate") / "metrics.csv")


def swept(wildcards):
    """Input: the measurements of all variants of the sweep, each once."""
    return list(dict.fromkeys(metrics_of(variant) for variant in VARIANTS))


def swept_settings(wildcards):
    """Params: what the variants are and where they are measured, each once."""
    runs = {
        metrics_of(v): {
            "metrics": metrics_of(v),
            "variant": v.label,
            "settings": v.settings,
            "seed": v.seed,
        }
        for v in reversed(VARIANTS)
    }
    return json.dumps(
        {
            "version": version_of("sweep_table"),
            "title": SWEEP.title,
            "runs": list(reversed(runs.values())),
        },
        ensure_ascii=False,
    )


def sweep_result(wildcards):
    """Input of target `sweep`: the table of the sweep that is asked for."""
    if SWEEP is None:
        known = ", ".join(sorted(path.stem for path in SWEEPS.glob("*.yaml")))
        sys.exit(f"cutsew: sweep: none is named; add --config sweep=NAME ({known})")
    return f"results/{DATASET}/sweeps/{SWEEP_NAME}/table.csv"
