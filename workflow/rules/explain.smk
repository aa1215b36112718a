# What the report shows of how teacher and student see; chosen and made without true labels.


rule explain:
    input:
        images=ancient(manifest),
        adapter=artifact("train", "adapter.safetensors"),
        model=artifact("train", "model.yaml"),
        views=artifact("seal", "views.zarr"),
        text=artifact("text", "text.zarr"),
        scores=artifact("predict", "scores.zarr"),
        refined=artifact("train", "refined.zarr"),
        weights=optional("tiny_clip", "cutsew-tiny.safetensors"),
    output:
        group="results/{dataset}/{run}/maps.zarr/zarr.json",
        record="results/{dataset}/{run}/maps.json",
    log:
        "results/{dataset}/{run}/logs/explain.log",
    conda:
        "../../envs/cutsew.yaml"
    threads: 2
    resources:
        gpu=gpus(),
        local_gpu=local_gpus(),
        mem_mb=megabytes("explain"),
        runtime=minutes("explain"),
        device=COMPUTE.device,
        batch_size=COMPUTE.batch_size,
    params:
        images=of_job(rule_inputs.split_digest),
        settings=settings("explain"),
        weights=of_job(rule_inputs.weights_digests, "explain"),
    shell:
        cutsew(
            "--log {log} explain {input.images} {input.adapter} {output.group} --settings {params.settings:q}"
            " --views {input.views} --text {input.text} --scores {input.scores} --refined {input.refined}"
            " --device {resources.device} --batch-size {resources.batch_size} --workers {threads}"
        )
