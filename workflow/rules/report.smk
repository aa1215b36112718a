# What comes out: a table of every image's labels, and one page that shows them and why.


rule labels_table:
    input:
        stage=of_job(rule_inputs.last_labels),
        images=ancient(manifest),
        thresholds=artifact("thresholds", "thresholds.csv"),
        corrections=optional("corrections", "corrections.parquet"),
    output:
        csv="results/{dataset}/{run}/labels.csv",
        parquet="results/{dataset}/{run}/labels.parquet",
        record="results/{dataset}/{run}/labels.json",
    log:
        "results/{dataset}/{run}/logs/labels_table.log",
    localrule: FITS_LOGIN_NODE
    conda:
        "../../envs/cutsew.yaml"
    resources:
        mem_mb=megabytes("labels_table"),
        runtime=minutes("labels_table"),
    params:
        images=of_job(rule_inputs.placement_digest),
        settings=settings("labels_table"),
        options=options("images"),
    shell:
        cutsew(
            "--log {log} labels_table {input.images} {output.csv} --settings {params.settings:q} {params.options:q}"
        )


rule report:
    input:
        targets=optional("targets", "targets.zarr"),
        overridden=of_job(rule_inputs.overridden),
        refined=optional("train", "refined.zarr"),
        scores=optional("predict", "scores.zarr"),
        tiles=optional("tiles", "tiles.zarr"),
        ensemble=optional("ensemble", "ensemble.zarr"),
        labels=optional("truth", "truth.parquet"),
        corrections=optional("corrections", "corrections.parquet"),
        history=optional("train", "history.csv"),
        thresholds=artifact("thresholds", "thresholds.csv"),
        views=optional("seal", "views.zarr"),
        maps=optional("explain", "maps.zarr"),
        images=ancient(manifest),
        logits=of_job(rule_inputs.logits),
        fused=artifact("fuse", "fused.zarr"),
        pseudo=artifact("correct", "pseudo.zarr"),
        metrics=artifact("evaluate", "metrics.csv"),
    output:
        page=report(
            "results/{dataset}/{run}/report.html",
            caption="../report/report.rst",
            category="Runs",
            subcategory="{run}",
            labels={"run": "{run}", "shows": "everything"},
        ),
        scenes=report(
            "results/{dataset}/{run}/scenes.png",
            caption="../report/scenes.rst",
            category="Runs",
            subcategory="{run}",
            labels={"run": "{run}", "shows": "six images"},
        ),
        record="results/{dataset}/{run}/report.json",
    log:
        "results/{dataset}/{run}/logs/report.log",
    localrule: FITS_LOGIN_NODE
    conda:
        "../../envs/cutsew.yaml"
    resources:
        mem_mb=megabytes("report"),
        runtime=minutes("report"),
    params:
        images=of_job(rule_inputs.placement_digest),
        files=of_job(rule_inputs.files_digest),
        settings=of_job(rule_inputs.settings_digest),
        options=options("images", "logits", "fused", "pseudo", "metrics"),
        version=STAGES["report"].version,
    shell:
        cutsew(
            "--log {log} report {output.page} --metrics {input.metrics} --images {input.images}"
            " --logits {input.logits} --fused {input.fused} --pseudo {input.pseudo} {params.options:q}"
        )
