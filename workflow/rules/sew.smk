# Sewing: lift the likeliest classes, choose salient photos, paste them onto others and train.


rule correct:
    input:
        fused=made("fuse", "fused.zarr/zarr.json"),
    output:
        group="results/{dataset}/{run}/pseudo.zarr/zarr.json",
        record="results/{dataset}/{run}/pseudo.json",
    params:
        settings=settings("correct"),
    log:
        "results/{dataset}/{run}/logs/correct.log",
    conda:
        "../../envs/cutsew.yaml"
    shell:
        "cutsew --log {log} correct {input.fused} {output.group} --settings {params.settings:q}"


rule select:
    input:
        images=made("manifest", "images.parquet"),
        logits=logits,
    output:
        patches="results/{dataset}/{run}/patches.parquet",
        record="results/{dataset}/{run}/patches.json",
    params:
        settings=settings("select"),
    log:
        "results/{dataset}/{run}/logs/select.log",
    conda:
        "../../envs/cutsew.yaml"
    shell:
        "cutsew --log {log} select {input.images} {input.logits} {output.patches} --settings {params.settings:q}"


rule train:
    input:
        images=made("manifest", "images.parquet"),
        labels=starting_labels,
        patches=made("select", "patches.parquet"),
        weights=rebuilt_weights,
    output:
        adapter="results/{dataset}/{run}/adapter.safetensors",
        model="results/{dataset}/{run}/model.yaml",
        refined="results/{dataset}/{run}/refined.zarr/zarr.json",
        history="results/{dataset}/{run}/history.csv",
        record="results/{dataset}/{run}/adapter.json",
    params:
        settings=settings("train"),
    log:
        "results/{dataset}/{run}/logs/train.log",
    conda:
        "../../envs/cutsew.yaml"
    threads: 2
    resources:
        gpu=GPUS,
        device=DEVICE,
    shell:
        "cutsew --log {log} train {input.images} {input.labels} {input.patches} {output.adapter}"
        " --settings {params.settings:q} --device {resources.device} --workers {threads}"
