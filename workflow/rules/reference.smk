# Reference students, to place the method between its floor and its ceiling. Outside the label firewall: all but naive
# distillation are trained on true labels, and nothing of the method reads what is made here.


rule reference_labels:
    input:
        images=ancient(photos),
        truth=made("truth", "truth.parquet"),
    output:
        group="results/{dataset}/{run}/references/{reference}/labels.zarr/zarr.json",
        record="results/{dataset}/{run}/references/{reference}/labels.json",
    log:
        "results/{dataset}/{run}/logs/reference_labels-{reference}.log",
    conda:
        "../../envs/cutsew.yaml"
    params:
        photos=photos_digest,
        settings=settings("reference_labels"),
    shell:
        cutsew(
            "--log {log} reference_labels {input.images} {input.truth} {output.group}"
            " --kind {wildcards.reference} --settings {params.settings:q}"
        )


rule reference_train:
    input:
        images=ancient(photos),
        labels=labels_of_reference,
        weights=rebuilt_weights,
    output:
        adapter="results/{dataset}/{run}/references/{reference}/adapter.safetensors",
        model="results/{dataset}/{run}/references/{reference}/model.yaml",
        refined="results/{dataset}/{run}/references/{reference}/refined.zarr/zarr.json",
        history="results/{dataset}/{run}/references/{reference}/history.csv",
        record="results/{dataset}/{run}/references/{reference}/adapter.json",
        refined_record="results/{dataset}/{run}/references/{reference}/refined.json",
    log:
        "results/{dataset}/{run}/logs/reference_train-{reference}.log",
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
        settings=settings("reference_train"),
        weights=weights_digest("reference_train"),
    shell:
        cutsew(
            "--log {log} train {input.images} {input.labels} {output.adapter}"
            " --settings {params.settings:q} --device {resources.device} --workers {threads}"
            " --checkpoint-seconds {resources.checkpoint_seconds} --processes {resources.processes}"
            " --features {resources.features:q} --cache-features {resources.cache_features}"
        )


rule reference_predict:
    input:
        images=ancient(photos),
        adapter=made("reference_train", "references/{reference}/adapter.safetensors"),
        model=made("reference_train", "references/{reference}/model.yaml"),
    output:
        group="results/{dataset}/{run}/references/{reference}/scores.zarr/zarr.json",
        record="results/{dataset}/{run}/references/{reference}/scores.json",
    log:
        "results/{dataset}/{run}/logs/reference_predict-{reference}.log",
    conda:
        "../../envs/cutsew.yaml"
    threads: 2
    resources:
        gpu=gpus,
        local_gpu=local_gpus,
        mem_mb=megabytes("predict"),
        runtime=minutes("predict"),
        device=DEVICE,
        batch_size=BATCH_SIZE,
    params:
        photos=photos_digest,
        version=version_of("reference_predict"),
    shell:
        cutsew(
            "--log {log} predict {input.images} {input.adapter} {output.group}"
            " --device {resources.device} --batch-size {resources.batch_size} --workers {threads}"
        )
