# Sewing: lift the likeliest classes, apply manual corrections, choose salient images, paste them onto others and train.


rule correct:
    input:
        fused=artifact("fuse", "fused.zarr"),
    output:
        group="results/{dataset}/{run}/pseudo.zarr/zarr.json",
        record="results/{dataset}/{run}/pseudo.json",
    log:
        "results/{dataset}/{run}/logs/correct.log",
    conda:
        "../../envs/cutsew.yaml"
    resources:
        mem_mb=megabytes("correct"),
        runtime=minutes("correct"),
    params:
        settings=settings("correct"),
    shell:
        cutsew(
            "--log {log} correct {input.fused} {output.group} --settings {params.settings:q}"
        )


rule targets:
    input:
        images=ancient(manifest),
        labels=of_job(rule_inputs.labels, "targets"),
    output:
        group="results/{dataset}/{run}/targets.zarr/zarr.json",
        record="results/{dataset}/{run}/targets.json",
    log:
        "results/{dataset}/{run}/logs/targets.log",
    localrule: FITS_LOGIN_NODE
    conda:
        "../../envs/cutsew.yaml"
    resources:
        mem_mb=megabytes("targets"),
        runtime=minutes("targets"),
    params:
        images=of_job(rule_inputs.split_digest),
        settings=settings("targets"),
    shell:
        cutsew(
            "--log {log} targets {input.images} {input.labels} {output.group}"
            " --settings {params.settings:q}"
        )


rule corrections:
    input:
        images=ancient(manifest),
        file=user_file(lambda run: run.labels.overrides),
    output:
        table="results/{dataset}/{run}/corrections.parquet",
        record="results/{dataset}/{run}/corrections.json",
    log:
        "results/{dataset}/{run}/logs/corrections.log",
    conda:
        "../../envs/cutsew.yaml"
    resources:
        mem_mb=megabytes("corrections"),
        runtime=minutes("corrections"),
    params:
        images=of_job(rule_inputs.split_digest),
        settings=settings("corrections"),
    shell:
        cutsew(
            "--log {log} corrections {input.images} {input.file:q} {output.table} --settings {params.settings:q}"
        )


rule override:
    input:
        images=ancient(manifest),
        labels=of_job(rule_inputs.labels, "override"),
        corrections=ancient(artifact("corrections", "corrections.parquet")),
    output:
        group="results/{dataset}/{run}/overridden.zarr/zarr.json",
        record="results/{dataset}/{run}/overridden.json",
    log:
        "results/{dataset}/{run}/logs/override.log",
    localrule: FITS_LOGIN_NODE
    conda:
        "../../envs/cutsew.yaml"
    resources:
        mem_mb=megabytes("override"),
        runtime=minutes("override"),
    params:
        images=of_job(rule_inputs.split_digest),
        corrections=of_job(rule_inputs.training_corrections),
        settings=settings("override"),
    shell:
        cutsew(
            "--log {log} override {input.images} {input.labels} {input.corrections} {output.group}"
            " --settings {params.settings:q}"
        )


rule select:
    input:
        images=ancient(manifest),
        labels=of_job(rule_inputs.salience_labels),
    output:
        patches="results/{dataset}/{run}/patches.parquet",
        record="results/{dataset}/{run}/patches.json",
    log:
        "results/{dataset}/{run}/logs/select.log",
    localrule: FITS_LOGIN_NODE
    conda:
        "../../envs/cutsew.yaml"
    resources:
        mem_mb=megabytes("select"),
        runtime=minutes("select"),
    params:
        images=of_job(rule_inputs.split_digest),
        settings=settings("select"),
    shell:
        cutsew(
            "--log {log} select {input.images} {input.labels} {output.patches} --settings {params.settings:q}"
        )


rule train:
    input:
        images=ancient(manifest),
        labels=of_job(rule_inputs.labels, "train"),
        patches=optional("select", "patches.parquet"),
        weights=optional("tiny_clip", "cutsew-tiny.safetensors"),
    output:
        adapter="results/{dataset}/{run}/adapter.safetensors",
        model="results/{dataset}/{run}/model.yaml",
        refined="results/{dataset}/{run}/refined.zarr/zarr.json",
        history="results/{dataset}/{run}/history.csv",
        record="results/{dataset}/{run}/adapter.json",
        refined_record="results/{dataset}/{run}/refined.json",
    log:
        "results/{dataset}/{run}/logs/train.log",
    conda:
        "../../envs/cutsew.yaml"
    threads: 2
    resources:
        gpu=gpus(COMPUTE.train_processes),
        local_gpu=local_gpus(COMPUTE.train_processes),
        mem_mb=megabytes("train"),
        runtime=minutes("train"),
        device=COMPUTE.device,
        checkpoint_seconds=str(COMPUTE.checkpoint_seconds),
        cache_features=str(COMPUTE.cache_features),
        features=str(PLAN.dataset_folder / "features"),
        processes=COMPUTE.train_processes,
    params:
        images=of_job(rule_inputs.split_digest),
        options=options("images", "labels", "weights"),
        settings=settings("train"),
        weights=of_job(rule_inputs.weights_digests, "train"),
    shell:
        cutsew(
            "--log {log} train {input.images} {input.labels} {output.adapter} {params.options:q}"
            " --settings {params.settings:q} --device {resources.device} --workers {threads}"
            " --checkpoint-seconds {resources.checkpoint_seconds} --processes {resources.processes}"
            " --features {resources.features:q} --cache-features {resources.cache_features}"
        )
