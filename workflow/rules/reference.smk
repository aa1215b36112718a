# Reference students, to place the method between its floor and its ceiling. Outside the label firewall: all but naive
# distillation are trained on true labels, and nothing of the method reads what is made here.


rule reference_labels:
    input:
        images=ancient(manifest),
        truth=artifact("truth", "truth.parquet"),
    output:
        group="results/{dataset}/{run}/references/{reference}/labels.zarr/zarr.json",
        record="results/{dataset}/{run}/references/{reference}/labels.json",
    log:
        "results/{dataset}/{run}/logs/reference_labels-{reference}.log",
    localrule: FITS_LOGIN_NODE
    conda:
        "../../envs/cutsew.yaml"
    resources:
        mem_mb=megabytes("reference_labels"),
        runtime=minutes("reference_labels"),
    params:
        images=of_job(rule_inputs.split_digest),
        settings=settings("reference_labels"),
    shell:
        cutsew(
            "--log {log} reference_labels {input.images} {input.truth} {output.group}"
            " --kind {wildcards.reference} --settings {params.settings:q}"
        )


rule reference_train:
    input:
        images=ancient(manifest),
        labels=of_job(rule_inputs.reference_labels),
        weights=optional("tiny_clip", "cutsew-tiny.safetensors"),
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
        settings=settings("reference_train"),
        weights=of_job(rule_inputs.weights_digests, "reference_train"),
    shell:
        cutsew(
            "--log {log} train {input.images} {input.labels} {output.adapter}"
            " --settings {params.settings:q} --device {resources.device} --workers {threads}"
            " --checkpoint-seconds {resources.checkpoint_seconds} --processes {resources.processes}"
            " --features {resources.features:q} --cache-features {resources.cache_features}"
        )


use rule predict as reference_predict with:
    input:
        images=ancient(manifest),
        adapter=artifact(
            "reference_train", "references/{reference}/adapter.safetensors"
        ),
        model=artifact("reference_train", "references/{reference}/model.yaml"),
    output:
        group="results/{dataset}/{run}/references/{reference}/scores.zarr/zarr.json",
        record="results/{dataset}/{run}/references/{reference}/scores.json",
    log:
        "results/{dataset}/{run}/logs/reference_predict-{reference}.log",
    params:
        version=STAGES["reference_predict"].version,
