# Measuring: the only place, with the report, where true labels are read.


rule predict:
    input:
        images=ancient(photos),
        adapter=made("train", "adapter.safetensors"),
        model=made("train", "model.yaml"),
    output:
        group="results/{dataset}/{run}/scores.zarr/zarr.json",
        record="results/{dataset}/{run}/scores.json",
    log:
        "results/{dataset}/{run}/logs/predict.log",
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
        version=version_of("predict"),
    shell:
        cutsew(
            "--log {log} predict {input.images} {input.adapter} {output.group}"
            " --device {resources.device} --batch-size {resources.batch_size} --workers {threads}"
        )


rule tiles:
    input:
        images=ancient(photos),
        adapter=made("train", "adapter.safetensors"),
        model=made("train", "model.yaml"),
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
        gpu=gpus,
        local_gpu=local_gpus,
        mem_mb=megabytes("predict"),
        runtime=minutes("tiles"),
        device=DEVICE,
        batch_size=BATCH_SIZE,
    params:
        photos=photos_digest,
        version=version_of("tiles"),
    shell:
        cutsew(
            "--log {log} tiles {input.images} {input.adapter} {output.group}"
            " --device {resources.device} --batch-size {resources.batch_size} --workers {threads}"
        )


rule ensemble:
    input:
        images=ancient(photos),
        adapter=made("train", "adapter.safetensors"),
        model=made("train", "model.yaml"),
        scores=made("predict", "scores.zarr/zarr.json"),
        fused=made("fuse", "fused.zarr/zarr.json"),
        logits=logits,
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
        gpu=gpus,
        local_gpu=local_gpus,
        mem_mb=megabytes("predict"),
        runtime=minutes("predict"),
        device=DEVICE,
        batch_size=BATCH_SIZE,
    params:
        photos=photos_digest,
        settings=settings("ensemble"),
    shell:
        cutsew(
            "--log {log} ensemble {input.images} {input.adapter} {output.group} --settings {params.settings:q}"
            " --scores {input.scores} --fused {input.fused} --logits {input.logits}"
            " --device {resources.device} --batch-size {resources.batch_size} --workers {threads}"
        )


rule thresholds:
    input:
        scores=made("predict", "scores.zarr/zarr.json"),
        refined=made("train", "refined.zarr/zarr.json"),
        logits=logits,
    output:
        table="results/{dataset}/{run}/thresholds.csv",
        record="results/{dataset}/{run}/thresholds.json",
    log:
        "results/{dataset}/{run}/logs/thresholds.log",
    conda:
        "../../envs/cutsew.yaml"
    resources:
        mem_mb=megabytes("thresholds"),
        runtime=minutes("thresholds"),
    params:
        settings=settings("thresholds"),
    shell:
        cutsew(
            "--log {log} thresholds {input.scores} {output.table} --logits {input.logits}"
            " --refined {input.refined} --settings {params.settings:q}"
        )


rule evaluate:
    input:
        unpack(measured),
        references=references,
        thresholds=suggested,
        images=ancient(photos),
        logits=logits,
        fused=made("fuse", "fused.zarr/zarr.json"),
        pseudo=made("correct", "pseudo.zarr/zarr.json"),
    output:
        metrics="results/{dataset}/{run}/metrics.csv",
        per_class="results/{dataset}/{run}/per_class.csv",
        agreement="results/{dataset}/{run}/agreement.csv",
        confidence="results/{dataset}/{run}/confidence.csv",
        rules="results/{dataset}/{run}/thresholds_f1.csv",
        record="results/{dataset}/{run}/metrics.json",
    log:
        "results/{dataset}/{run}/logs/evaluate.log",
    conda:
        "../../envs/cutsew.yaml"
    resources:
        mem_mb=megabytes("evaluate"),
        runtime=minutes("evaluate"),
    params:
        photos=photos_digest,
        settings=settings("evaluate"),
        options=measure_options,
    shell:
        cutsew(
            "--log {log} evaluate {input.images} {output.metrics} --settings {params.settings:q}"
            " --logits {input.logits} --fused {input.fused} --pseudo {input.pseudo} {params.options:q}"
        )
