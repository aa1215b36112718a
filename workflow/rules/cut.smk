# Cutting: score the whole image and M crops with the teacher, and fuse the logits.


rule tiny_clip:
    output:
        weights="results/{dataset}/{run}/cutsew-tiny.safetensors",
    log:
        "results/{dataset}/{run}/logs/tiny_clip.log",
    conda:
        "../../envs/cutsew.yaml"
    threads: 2
    resources:
        mem_mb=megabytes("tiny_clip"),
        runtime=minutes("tiny_clip"),
    params:
        settings=settings("tiny_clip"),
    shell:
        cutsew("--log {log} tiny_clip {output.weights}")


rule text:
    input:
        weights=optional("tiny_clip", "cutsew-tiny.safetensors"),
    output:
        group="results/{dataset}/{run}/text.zarr/zarr.json",
        record="results/{dataset}/{run}/text.json",
    log:
        "results/{dataset}/{run}/logs/text.log",
    conda:
        "../../envs/cutsew.yaml"
    resources:
        gpu=gpus(),
        local_gpu=local_gpus(),
        mem_mb=megabytes("text"),
        runtime=minutes("text"),
        device=COMPUTE.device,
    params:
        settings=settings("text"),
        weights=of_job(rule_inputs.weights_digests, "text"),
    shell:
        cutsew(
            "--log {log} text {output.group} --settings {params.settings:q} --device {resources.device}"
        )


# An image is decoded once for itself and the first block of its crops; runs without crops have no chunk files of these.
rule encode:
    input:
        images=ancient(artifact("manifest", "images.parquet")),
        weights=optional("tiny_clip", "cutsew-tiny.safetensors"),
    output:
        chunk="results/{dataset}/{run}/views.zarr/global/c/{shard}/0",
        crops="results/{dataset}/{run}/views.zarr/crops/c/0/{shard}/0",
        boxes="results/{dataset}/{run}/views.zarr/boxes/c/0/{shard}/0",
        record="results/{dataset}/{run}/views.records/0-{shard}.json",
    log:
        "results/{dataset}/{run}/logs/encode-0-{shard}.log",
    wildcard_constraints:
        run=runs_with_crops(),
    conda:
        "../../envs/cutsew.yaml"
    threads: 2
    resources:
        gpu=gpus(),
        local_gpu=local_gpus(),
        mem_mb=megabytes("encode"),
        runtime=minutes("encode"),
        device=COMPUTE.device,
        batch_size=COMPUTE.batch_size,
    params:
        views=subpath(output.chunk, ancestor=4),
        settings=settings("encode"),
        weights=of_job(rule_inputs.weights_digests, "encode"),
        passes=of_job(rule_inputs.block_passes),
        digest=of_job(rule_inputs.shard_digest),
    shell:
        cutsew(
            "--log {log} encode {input.images} {params.views} --shard {wildcards.shard}"
            " --block 0 --passes {params.passes} --settings {params.settings:q}"
            " --device {resources.device} --batch-size {resources.batch_size} --workers {threads}"
        )


use rule encode as encode_images with:
    output:
        chunk="results/{dataset}/{run}/views.zarr/global/c/{shard}/0",
        record="results/{dataset}/{run}/views.records/0-{shard}.json",
    wildcard_constraints:
        run=runs_without_crops(),


rule encode_crops:
    input:
        images=ancient(artifact("manifest", "images.parquet")),
        weights=optional("tiny_clip", "cutsew-tiny.safetensors"),
    output:
        chunk="results/{dataset}/{run}/views.zarr/crops/c/{block}/{shard}/0",
        boxes="results/{dataset}/{run}/views.zarr/boxes/c/{block}/{shard}/0",
        record="results/{dataset}/{run}/views.records/{block}-{shard}.json",
    log:
        "results/{dataset}/{run}/logs/encode-{block}-{shard}.log",
    wildcard_constraints:
        block=r"[1-9]\d*",
    conda:
        "../../envs/cutsew.yaml"
    threads: 2
    resources:
        gpu=gpus(),
        local_gpu=local_gpus(),
        mem_mb=megabytes("encode"),
        runtime=minutes("encode"),
        device=COMPUTE.device,
        batch_size=COMPUTE.batch_size,
    params:
        views=subpath(output.chunk, ancestor=5),
        settings=settings("encode"),
        weights=of_job(rule_inputs.weights_digests, "encode"),
        passes=of_job(rule_inputs.block_passes),
        digest=of_job(rule_inputs.shard_digest),
    shell:
        cutsew(
            "--log {log} encode {input.images} {params.views} --shard {wildcards.shard}"
            " --block {wildcards.block} --passes {params.passes} --settings {params.settings:q}"
            " --device {resources.device} --batch-size {resources.batch_size} --workers {threads}"
        )


rule seal:
    input:
        images=ancient(manifest),
        shards=ancient(artifact("manifest", "shards.csv")),
        chunks=shard_files("encode"),
    output:
        group="results/{dataset}/{run}/views.zarr/zarr.json",
        record="results/{dataset}/{run}/views.json",
    log:
        "results/{dataset}/{run}/logs/seal.log",
    localrule: FITS_LOGIN_NODE
    conda:
        "../../envs/cutsew.yaml"
    resources:
        mem_mb=megabytes("seal"),
        runtime=minutes("seal"),
    params:
        images=of_job(rule_inputs.content_digest),
        settings=settings("seal"),
    shell:
        cutsew(
            "--log {log} seal {input.images} {output.group} --settings {params.settings:q}"
        )


rule score:
    input:
        views=artifact("seal", "views.zarr"),
        text=artifact("text", "text.zarr"),
    output:
        group="results/{dataset}/{run}/logits.zarr/zarr.json",
        record="results/{dataset}/{run}/logits.json",
    log:
        "results/{dataset}/{run}/logs/score.log",
    wildcard_constraints:
        run=runs_scored_by("score"),
    conda:
        "../../envs/cutsew.yaml"
    threads: 2
    resources:
        mem_mb=megabytes("score"),
        runtime=minutes("score"),
    params:
        settings=settings("score"),
    shell:
        cutsew(
            "--log {log} score {input.views} {input.text} {output.group} --settings {params.settings:q}"
            " --threads {threads}"
        )


rule import_scores:
    input:
        images=ancient(manifest),
        shards=ancient(artifact("manifest", "shards.csv")),
        scores=user_file(lambda run: run.teacher.scores.file),
    output:
        group="results/{dataset}/{run}/logits.zarr/zarr.json",
        record="results/{dataset}/{run}/logits.json",
    log:
        "results/{dataset}/{run}/logs/import_scores.log",
    wildcard_constraints:
        run=runs_scored_by("import_scores"),
    conda:
        "../../envs/cutsew.yaml"
    resources:
        mem_mb=megabytes("import_scores"),
        runtime=minutes("import_scores"),
    params:
        images=of_job(rule_inputs.split_digest),
        settings=settings("import_scores"),
    shell:
        cutsew(
            "--log {log} import_scores {input.images} {output.group} --settings {params.settings:q}"
        )


rule fuse:
    input:
        logits=of_job(rule_inputs.logits),
        tagclip=optional("seal_tagclip", "tagclip.zarr"),
    output:
        group="results/{dataset}/{run}/fused.zarr/zarr.json",
        record="results/{dataset}/{run}/fused.json",
    log:
        "results/{dataset}/{run}/logs/fuse.log",
    conda:
        "../../envs/cutsew.yaml"
    resources:
        mem_mb=megabytes("fuse"),
        runtime=minutes("fuse"),
    params:
        settings=settings("fuse"),
        options=options("logits"),
    shell:
        cutsew(
            "--log {log} fuse {input.logits} {output.group} --settings {params.settings:q} {params.options:q}"
        )
