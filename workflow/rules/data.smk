# The images: what there is, in a stable order; and apart from it their true labels, where there are any.


rule demo_world:
    output:
        train="results/{dataset}/{run}/world/ImageSets/Main/train.txt",
        val="results/{dataset}/{run}/world/ImageSets/Main/val.txt",
        record="results/{dataset}/{run}/world.json",
    log:
        "results/{dataset}/{run}/logs/demo_world.log",
    conda:
        "../../envs/cutsew.yaml"
    threads: 2
    resources:
        mem_mb=megabytes("demo_world"),
        runtime=minutes("demo_world"),
    params:
        folder=subpath(output.record, strip_suffix=".json"),
        settings=settings("demo_world"),
    shell:
        cutsew(
            "--log {log} demo_world {params.folder} --settings {params.settings:q} --workers {threads}"
        )


rule download:
    output:
        record="results/{dataset}/{run}/download.json",
    log:
        "results/{dataset}/{run}/logs/download.log",
    localrule: True
    conda:
        "../../envs/cutsew.yaml"
    resources:
        mem_mb=megabytes("download"),
        runtime=minutes("download"),
    params:
        settings=settings("download"),
    shell:
        cutsew("--log {log} download {output.record} --settings {params.settings:q}")


checkpoint manifest:
    input:
        world=optional("demo_world", "world/ImageSets/Main/train.txt"),
        archives=optional("download", "download.json"),
    output:
        images=update("results/{dataset}/{run}/images.parquet"),
        shards="results/{dataset}/{run}/shards.csv",
        skipped="results/{dataset}/{run}/skipped.csv",
        record="results/{dataset}/{run}/images.json",
    log:
        "results/{dataset}/{run}/logs/manifest.log",
    conda:
        "../../envs/cutsew.yaml"
    threads: all_cores(most=16)
    resources:
        mem_mb=megabytes("manifest"),
        runtime=minutes("manifest"),
    params:
        settings=settings("manifest"),
        root=of_job(rule_inputs.image_root),
        listing=of_listing(rule_inputs.image_listing),
    shell:
        cutsew(
            "--log {log} manifest {output.images} --root {params.root:q}"
            " --settings {params.settings:q} --workers {threads}"
        )


rule truth:
    input:
        images=ancient(manifest),
        truth=user_file(lambda run: run.dataset.truth),
    output:
        labels="results/{dataset}/{run}/truth.parquet",
        record="results/{dataset}/{run}/truth.json",
    log:
        "results/{dataset}/{run}/logs/truth.log",
    localrule: FITS_LOGIN_NODE
    conda:
        "../../envs/cutsew.yaml"
    resources:
        mem_mb=megabytes("truth"),
        runtime=minutes("truth"),
    params:
        images=of_job(rule_inputs.split_digest),
        settings=settings("truth"),
        root=of_job(rule_inputs.image_root),
        listing=of_listing(rule_inputs.truth_listing),
    shell:
        cutsew(
            "--log {log} truth {input.images} {output.labels} --root {params.root:q} --settings {params.settings:q}"
        )
