# Sewing: lift the likeliest classes, take corrections by hand where there are any, choose salient photos, paste them onto others and train.


rule correct:
    input:
        fused=made("fuse", "fused.zarr/zarr.json"),
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
        images=ancient(photos),
        labels=labels_for("targets"),
    output:
        group="results/{dataset}/{run}/targets.zarr/zarr.json",
        record="results/{dataset}/{run}/targets.json",
    log:
        "results/{dataset}/{run}/logs/targets.log",
    conda:
        "../../envs/cutsew.yaml"
    params:
        photos=photos_digest,
        settings=settings("targets"),
    shell:
        cutsew(
            "--log {log} targets {input.images} {input.labels} {output.group}"
            " --settings {params.settings:q}"
        )


rule corrections:
    input:
        images=ancient(photos),
        file=corrections_file,
    output:
        table="results/{dataset}/{run}/corrections.parquet",
        record="results/{dataset}/{run}/corrections.json",
    log:
        "results/{dataset}/{run}/logs/corrections.log",
    conda:
        "../../envs/cutsew.yaml"
    params:
        photos=photos_digest,
        settings=settings("corrections"),
    shell:
        cutsew(
            "--log {log} corrections {input.images} {input.file:q} {output.table} --settings {params.settings:q}"
        )


rule override:
    input:
        images=ancient(photos),
        labels=labels_for("override"),
        corrections=ancient(made("corrections", "corrections.parquet")),
    output:
        group="results/{dataset}/{run}/overridden.zarr/zarr.json",
        record="results/{dataset}/{run}/overridden.json",
    log:
        "results/{dataset}/{run}/logs/override.log",
    conda:
        "../../envs/cutsew.yaml"
    params:
        photos=photos_digest,
        corrections=trained_corrections,
        settings=settings("override"),
    shell:
        cutsew(
            "--log {log} override {input.images} {input.labels} {input.corrections} {output.group}"
            " --settings {params.settings:q}"
        )


rule select:
    input:
        images=ancient(photos),
        labels=salient_labels,
    output:
        patches="results/{dataset}/{run}/patches.parquet",
        record="results/{dataset}/{run}/patches.json",
    log:
        "results/{dataset}/{run}/logs/select.log",
    conda:
        "../../envs/cutsew.yaml"
    resources:
        mem_mb=megabytes("select"),
        runtime=minutes("select"),
    params:
        photos=photos_digest,
        settings=settings("select"),
    shell:
        cutsew(
            "--log {log} select {input.images} {input.labels} {output.patches} --settings {params.settings:q}"
        )


rule train:
    input:
        images=ancient(photos),
        labels=labels_for("train"),
        patches=pasted,
        weights=rebuilt_weights,
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
        gpu=training_gpus,
        local_gpu=local_training_gpus,
        mem_mb=megabytes("train"),
        runtime=minutes("train"),
        device=DEVICE,
        checkpoint_seconds=CHECKPOINT_SECONDS,
        cache_features=CACHE_FEATURES,
        features=feature_folder,
        processes=TRAIN_PROCESSES,
    params:
        photos=photos_digest,
        patches=patch_options,
        settings=settings("train"),
        weights=weights_digest("train"),
    shell:
        cutsew(
            "--log {log} train {input.images} {input.labels} {output.adapter} {params.patches:q}"
            " --settings {params.settings:q} --device {resources.device} --workers {threads}"
            " --checkpoint-seconds {resources.checkpoint_seconds} --processes {resources.processes}"
            " --features {resources.features:q} --cache-features {resources.cache_features}"
        )
