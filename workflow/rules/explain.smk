# What the report shows of how teacher and student see; chosen and made without true labels.


rule explain:
    input:
        images=ancient(photos),
        adapter=made("train", "adapter.safetensors"),
        model=made("train", "model.yaml"),
        views=made("encode", "views.zarr/zarr.json"),
        text=made("text", "text.zarr/zarr.json"),
        scores=made("predict", "scores.zarr/zarr.json"),
        refined=made("train", "refined.zarr/zarr.json"),
        weights=rebuilt_weights,
    output:
        group="results/{dataset}/{run}/maps.zarr/zarr.json",
        record="results/{dataset}/{run}/maps.json",
    log:
        "results/{dataset}/{run}/logs/explain.log",
    conda:
        "../../envs/cutsew.yaml"
    threads: 2
    resources:
        gpu=gpus,
        local_gpu=local_gpus,
        mem_mb=megabytes("explain"),
        runtime=minutes("explain"),
        device=DEVICE,
        batch_size=BATCH_SIZE,
    params:
        photos=photos_digest,
        settings=settings("explain"),
        weights=weights_digest("explain"),
    shell:
        cutsew(
            "--log {log} explain {input.images} {input.adapter} {output.group} --settings {params.settings:q}"
            " --views {input.views} --text {input.text} --scores {input.scores} --refined {input.refined}"
            " --device {resources.device} --batch-size {resources.batch_size} --workers {threads}"
        )
