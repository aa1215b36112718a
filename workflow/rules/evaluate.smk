# Measuring: the only place, with the report, where true labels are read.


rule predict:
    input:
        images=ancient(manifest),
        adapter=artifact("train", "adapter.safetensors"),
        model=artifact("train", "model.yaml"),
    output:
        group="results/{dataset}/{run}/scores.zarr/zarr.json",
        record="results/{dataset}/{run}/scores.json",
    log:
        "results/{dataset}/{run}/logs/predict.log",
    conda:
        "../../envs/cutsew.yaml"
    threads: 2
    resources:
        gpu=gpus(),
        local_gpu=local_gpus(),
        mem_mb=megabytes("predict"),
        runtime=minutes("predict"),
        device=COMPUTE.device,
        batch_size=COMPUTE.batch_size,
    params:
        images=of_job(rule_inputs.split_digest),
        version=STAGES["predict"].version,
    shell:
        cutsew(
            "--log {log} predict {input.images} {input.adapter} {output.group}"
            " --device {resources.device} --batch-size {resources.batch_size} --workers {threads}"
        )


rule tiles:
    input:
        images=ancient(manifest),
        adapter=artifact("train", "adapter.safetensors"),
        model=artifact("train", "model.yaml"),
    output:
        group="results/{dataset}/{run}/tiles.zarr/zarr.json",
        reference="results/{dataset}/{run}/tiles.csv",
        record="results/{dataset}/{run}/tiles.json",
    log:
        "results/{dataset}/{run}/logs/tiles.log",
    conda:
        "../../envs/cutsew.yaml"
    threads: 2
    resources:
        gpu=gpus(),
        local_gpu=local_gpus(),
        mem_mb=megabytes("predict"),
        runtime=minutes("tiles"),
        device=COMPUTE.device,
        batch_size=COMPUTE.batch_size,
    params:
        images=of_job(rule_inputs.split_digest),
        version=STAGES["tiles"].version,
    shell:
        cutsew(
            "--log {log} tiles {input.images} {input.adapter} {output.group}"
            " --device {resources.device} --batch-size {resources.batch_size} --workers {threads}"
        )


rule ensemble:
    input:
        images=ancient(manifest),
        adapter=artifact("train", "adapter.safetensors"),
        model=artifact("train", "model.yaml"),
        scores=artifact("predict", "scores.zarr"),
        fused=artifact("fuse", "fused.zarr"),
        logits=of_job(rule_inputs.logits),
    output:
        group="results/{dataset}/{run}/ensemble.zarr/zarr.json",
        reference="results/{dataset}/{run}/ensemble.csv",
        record="results/{dataset}/{run}/ensemble.json",
    log:
        "results/{dataset}/{run}/logs/ensemble.log",
    conda:
        "../../envs/cutsew.yaml"
    threads: 2
    resources:
        gpu=gpus(),
        local_gpu=local_gpus(),
        mem_mb=megabytes("predict"),
        runtime=minutes("predict"),
        device=COMPUTE.device,
        batch_size=COMPUTE.batch_size,
    params:
        images=of_job(rule_inputs.split_digest),
        settings=settings("ensemble"),
    shell:
        cutsew(
            "--log {log} ensemble {input.images} {input.adapter} {output.group} --settings {params.settings:q}"
            " --scores {input.scores} --fused {input.fused} --logits {input.logits}"
            " --device {resources.device} --batch-size {resources.batch_size} --workers {threads}"
        )


rule thresholds:
    input:
        stage=of_job(rule_inputs.stages_with_thresholds),
        images=ancient(manifest),
    output:
        table="results/{dataset}/{run}/thresholds.csv",
        record="results/{dataset}/{run}/thresholds.json",
    log:
        "results/{dataset}/{run}/logs/thresholds.log",
    localrule: FITS_LOGIN_NODE
    conda:
        "../../envs/cutsew.yaml"
    resources:
        mem_mb=megabytes("thresholds"),
        runtime=minutes("thresholds"),
    params:
        images=of_job(rule_inputs.split_digest),
        settings=settings("thresholds"),
        options=options("images"),
    shell:
        cutsew(
            "--log {log} thresholds {input.images} {output.table} --settings {params.settings:q} {params.options:q}"
        )


rule evaluate:
    input:
        targets=optional("targets", "targets.zarr"),
        overridden=of_job(rule_inputs.overridden),
        refined=optional("train", "refined.zarr"),
        scores=optional("predict", "scores.zarr"),
        tiles=optional("tiles", "tiles.zarr"),
        ensemble=optional("ensemble", "ensemble.zarr"),
        labels=optional("truth", "truth.parquet"),
        reference=of_job(rule_inputs.reference_scores),
        thresholds=artifact("thresholds", "thresholds.csv"),
        images=ancient(manifest),
        logits=of_job(rule_inputs.logits),
        fused=artifact("fuse", "fused.zarr"),
        pseudo=artifact("correct", "pseudo.zarr"),
    output:
        metrics="results/{dataset}/{run}/metrics.csv",
        per_class="results/{dataset}/{run}/per_class.csv",
        agreement="results/{dataset}/{run}/agreement.csv",
        confidence="results/{dataset}/{run}/confidence.csv",
        rules="results/{dataset}/{run}/thresholds_f1.csv",
        record="results/{dataset}/{run}/metrics.json",
    log:
        "results/{dataset}/{run}/logs/evaluate.log",
    localrule: FITS_LOGIN_NODE
    conda:
        "../../envs/cutsew.yaml"
    resources:
        mem_mb=megabytes("evaluate"),
        runtime=minutes("evaluate"),
    params:
        images=of_job(rule_inputs.split_digest),
        settings=settings("evaluate"),
        options=options("images", "logits", "fused", "pseudo"),
    shell:
        cutsew(
            "--log {log} evaluate {input.images} {output.metrics} --settings {params.settings:q}"
            " --logits {input.logits} --fused {input.fused} --pseudo {input.pseudo} {params.options:q}"
        )
