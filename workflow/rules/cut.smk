# Cutting: ask the teacher about the whole photo and about M crops, and fuse its answers.


rule tiny_clip:
    output:
        weights="results/{dataset}/{run}/cutsew-tiny.safetensors",
    params:
        settings=settings("tiny_clip"),
    log:
        "results/{dataset}/{run}/logs/tiny_clip.log",
    conda:
        "../../envs/cutsew.yaml"
    threads: 2
    shell:
        "cutsew --log {log} tiny_clip {output.weights}"


rule text:
    input:
        weights=rebuilt_weights,
    output:
        group="results/{dataset}/{run}/text.zarr/zarr.json",
        record="results/{dataset}/{run}/text.json",
    params:
        settings=settings("text"),
    log:
        "results/{dataset}/{run}/logs/text.log",
    conda:
        "../../envs/cutsew.yaml"
    resources:
        device=DEVICE,
    shell:
        "cutsew --log {log} text {output.group} --settings {params.settings:q} --device {resources.device}"


rule encode_photos:
    input:
        images=ancient(made("manifest", "images.parquet")),
        weights=rebuilt_weights,
    output:
        chunk="results/{dataset}/{run}/views.zarr/global/c/{shard}/0",
        record="results/{dataset}/{run}/views.records/global-{shard}.json",
    params:
        views=subpath(output.chunk, ancestor=4),
        settings=settings("encode"),
        digest=shard_digest,
    log:
        "results/{dataset}/{run}/logs/encode-global-{shard}.log",
    conda:
        "../../envs/cutsew.yaml"
    threads: 2
    resources:
        gpu=GPUS,
        device=DEVICE,
        batch_size=BATCH_SIZE,
    shell:
        "cutsew --log {log} encode {input.images} {params.views} --shard {wildcards.shard}"
        " --settings {params.settings:q}"
        " --device {resources.device} --batch-size {resources.batch_size} --workers {threads}"


rule encode_crops:
    input:
        images=ancient(made("manifest", "images.parquet")),
        weights=rebuilt_weights,
    output:
        chunk="results/{dataset}/{run}/views.zarr/crops/c/{block}/{shard}/0",
        boxes="results/{dataset}/{run}/views.zarr/boxes/c/{block}/{shard}/0",
        record="results/{dataset}/{run}/views.records/crops-{block}-{shard}.json",
    params:
        views=subpath(output.chunk, ancestor=5),
        settings=settings("encode"),
        passes=passes_of_block,
        digest=shard_digest,
    log:
        "results/{dataset}/{run}/logs/encode-crops-{block}-{shard}.log",
    conda:
        "../../envs/cutsew.yaml"
    threads: 2
    resources:
        gpu=GPUS,
        device=DEVICE,
        batch_size=BATCH_SIZE,
    shell:
        "cutsew --log {log} encode {input.images} {params.views} --shard {wildcards.shard}"
        " --block {wildcards.block} --passes {params.passes} --settings {params.settings:q}"
        " --device {resources.device} --batch-size {resources.batch_size} --workers {threads}"


rule seal:
    input:
        images=made("manifest", "images.parquet"),
        chunks=chunks,
    output:
        group="results/{dataset}/{run}/views.zarr/zarr.json",
        record="results/{dataset}/{run}/views.json",
    params:
        settings=settings("seal"),
    log:
        "results/{dataset}/{run}/logs/seal.log",
    conda:
        "../../envs/cutsew.yaml"
    shell:
        "cutsew --log {log} seal {input.images} {output.group} --settings {params.settings:q}"


rule score:
    input:
        views=made("seal", "views.zarr/zarr.json"),
        text=made("text", "text.zarr/zarr.json"),
    output:
        group="results/{dataset}/{run}/logits.zarr/zarr.json",
        record="results/{dataset}/{run}/logits.json",
    params:
        settings=settings("score"),
    log:
        "results/{dataset}/{run}/logs/score.log",
    conda:
        "../../envs/cutsew.yaml"
    shell:
        "cutsew --log {log} score {input.views} {input.text} {output.group} --settings {params.settings:q}"


rule import_scores:
    input:
        images=made("manifest", "images.parquet"),
        scores=scores_file,
    output:
        group="results/{dataset}/{run}/logits.zarr/zarr.json",
        record="results/{dataset}/{run}/logits.json",
    params:
        settings=settings("import_scores"),
    log:
        "results/{dataset}/{run}/logs/import_scores.log",
    conda:
        "../../envs/cutsew.yaml"
    shell:
        "cutsew --log {log} import_scores {input.images} {output.group} --settings {params.settings:q}"


if has_views(DEFAULT):

    ruleorder: score > import_scores

else:

    ruleorder: import_scores > score


rule fuse:
    input:
        logits=logits,
    output:
        group="results/{dataset}/{run}/fused.zarr/zarr.json",
        record="results/{dataset}/{run}/fused.json",
    params:
        settings=settings("fuse"),
    log:
        "results/{dataset}/{run}/logs/fuse.log",
    conda:
        "../../envs/cutsew.yaml"
    shell:
        "cutsew --log {log} fuse {input.logits} {output.group} --settings {params.settings:q}"
