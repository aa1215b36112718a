# Helpers of sweeps: where their variants are measured and what they are called.


def metrics_of(variant):
    """Name the measurements of a sweep's variant."""
    return str(PLAN.folder(variant.run, "evaluate") / "metrics.csv")


def swept(wildcards):
    """Input: the measurements of all variants of a sweep, each once."""
    return list(dict.fromkeys(map(metrics_of, VARIANTS[wildcards.sweep])))


def swept_settings(wildcards):
    """Params: what the variants are and where they are measured, each once."""
    runs = {
        metrics_of(v): {
            "metrics": on_disk(metrics_of(v)),
            "variant": v.label,
            "settings": v.settings,
            "seed": v.seed,
        }
        for v in reversed(VARIANTS[wildcards.sweep])
    }
    return json.dumps(
        {
            "version": version_of("sweep_table"),
            "title": SWEEPS[wildcards.sweep].title,
            "against": SWEEPS[wildcards.sweep].against,
            "runs": list(reversed(runs.values())),
        },
        ensure_ascii=False,
    )


def sweep_result(wildcards):
    """Input of target `sweep`: the tables of the sweeps that are asked for."""
    if not SWEEPS:
        known = ", ".join(sorted(path.stem for path in SWEEP_FOLDER.glob("*.yaml")))
        sys.exit(
            f"cutsew: sweep: none is named; add --config sweep=NAME ({known}, or all)"
        )
    refuse_too_large(tuple(v.run for variants in VARIANTS.values() for v in variants))
    return [f"results/{DATASET}/sweeps/{name}/table.csv" for name in SWEEPS]
