# TagCLIP in place of cutting: score patches with the teacher, then the region of each class.


rule tagclip:
    input:
        images=ancient(artifact("manifest", "images.parquet")),
        text=artifact("text", "text.zarr"),
        weights=optional("tiny_clip", "cutsew-tiny.safetensors"),
    output:
        local_score="results/{dataset}/{run}/tagclip.zarr/local_score/c/{shard}/0",
        global_score="results/{dataset}/{run}/tagclip.zarr/global_score/c/{shard}/0",
        record="results/{dataset}/{run}/tagclip.records/{shard}.json",
    log:
        "results/{dataset}/{run}/logs/tagclip-{shard}.log",
    conda:
        "../../envs/cutsew.yaml"
    threads: 2
    resources:
        gpu=gpus(),
        local_gpu=local_gpus(),
        mem_mb=megabytes("tagclip"),
        runtime=minutes("tagclip"),
        device=COMPUTE.device,
        batch_size=COMPUTE.batch_size,
    params:
        group=subpath(output.local_score, ancestor=4),
        settings=settings("tagclip"),
        weights=of_job(rule_inputs.weights_digests, "tagclip"),
        digest=of_job(rule_inputs.shard_digest),
    shell:
        cutsew(
            "--log {log} tagclip {input.images} {input.text} {params.group} --shard {wildcards.shard}"
            " --settings {params.settings:q}"
            " --device {resources.device} --batch-size {resources.batch_size} --workers {threads}"
        )


rule seal_tagclip:
    input:
        images=ancient(manifest),
        shards=ancient(artifact("manifest", "shards.csv")),
        text=artifact("text", "text.zarr"),
        chunks=shard_files("tagclip"),
    output:
        group="results/{dataset}/{run}/tagclip.zarr/zarr.json",
        record="results/{dataset}/{run}/tagclip.json",
    log:
        "results/{dataset}/{run}/logs/seal_tagclip.log",
    localrule: FITS_LOGIN_NODE
    conda:
        "../../envs/cutsew.yaml"
    resources:
        mem_mb=megabytes("seal_tagclip"),
        runtime=minutes("seal_tagclip"),
    params:
        images=of_job(rule_inputs.content_digest),
        settings=settings("seal_tagclip"),
    shell:
        cutsew(
            "--log {log} seal_tagclip {input.images} {input.text} {output.group} --settings {params.settings:q}"
        )
