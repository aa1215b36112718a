# What comes out: a table of every photo's labels, and one page that shows them and why.


rule labels_table:
    input:
        unpack(last_labels),
        images=ancient(photos),
        thresholds=suggested,
        corrections=read_corrections,
    output:
        csv="results/{dataset}/{run}/labels.csv",
        parquet="results/{dataset}/{run}/labels.parquet",
        record="results/{dataset}/{run}/labels.json",
    log:
        "results/{dataset}/{run}/logs/labels_table.log",
    conda:
        "../../envs/cutsew.yaml"
    resources:
        mem_mb=megabytes("labels_table"),
        runtime=minutes("labels_table"),
    params:
        photos=photos_digest,
        settings=settings("labels_table"),
        options=table_options,
    shell:
        cutsew(
            "--log {log} labels_table {input.images} {output.csv} --settings {params.settings:q} {params.options:q}"
        )


rule report:
    input:
        unpack(shown),
        images=ancient(photos),
        logits=logits,
        fused=made("fuse", "fused.zarr/zarr.json"),
        pseudo=made("correct", "pseudo.zarr/zarr.json"),
        metrics=made("evaluate", "metrics.csv"),
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
            labels={"run": "{run}", "shows": "six photos"},
        ),
        record="results/{dataset}/{run}/report.json",
    log:
        "results/{dataset}/{run}/logs/report.log",
    conda:
        "../../envs/cutsew.yaml"
    resources:
        mem_mb=megabytes("report"),
        runtime=minutes("report"),
    params:
        photos=photos_digest,
        options=show_options,
        version=version_of("report"),
    shell:
        cutsew(
            "--log {log} report {output.page} --metrics {input.metrics} --images {input.images}"
            " --logits {input.logits} --fused {input.fused} --pseudo {input.pseudo} {params.options:q}"
        )
