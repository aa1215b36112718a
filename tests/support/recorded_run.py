"""A finished run with all its records, made with the package's own functions; its numbers mean nothing."""

import hashlib
import os
from pathlib import Path

import numpy as np
import pandas as pd

from cutsew.provenance.record import Record, input_digest
from cutsew.storage.file_digests import file_digest
from cutsew.storage.manifest import read_manifest, shard_digests, write_manifest
from cutsew.storage.zarr_layout import (
    ArraySpec,
    label_spec,
    logit_specs,
    map_specs,
    view_chunk_file,
    view_chunk_record,
    view_specs,
)
from cutsew.storage.zarr_writer import AuxiliaryCoordinate, finalize, new_group, write_chunk

CLASSES = ["cat", "dog"]
IDS = [f"train_{i:05d}" for i in range(4)] + [f"val_{i:05d}" for i in range(2)]
WIDTH, SHARD, PASSES, PER_JOB = 3, 4, 4, 2


def values(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def make_world(folder):
    digests = {}
    for name, suffix in (("JPEGImages", ".jpg"), ("Annotations", ".xml")):
        of_files = []
        for image in IDS:
            path = folder / "world" / name / f"{image}{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(f"{name} {image}".encode())
            of_files.append(file_digest(path))
        digests[f"world/{name}"] = hashlib.sha256("\n".join(of_files).encode()).hexdigest()
    for split in ("train", "val"):
        path = folder / "world" / "ImageSets" / "Main" / f"{split}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{image}\n" for image in IDS if image.startswith(split)))
        digests[f"world/ImageSets/Main/{split}.txt"] = file_digest(path)
    Record("demo_world", 1, {"dataset": {"demo": {"seed": 0}}}).write(folder / "world.json", digests)


def make_manifest(folder, ids=IDS):
    table = pd.DataFrame({"id": ids, "path": [f"{i}.jpg" for i in ids], "width": 8, "height": 6, "bytes": 9})
    table["digest"] = [hashlib.sha256(i.encode()).hexdigest() for i in ids]
    table["split"] = ["train" if i.startswith("train") else "test" for i in ids]
    table["shard"] = table.index // SHARD
    write_manifest(folder / "images.parquet", table)
    content, listed = shard_digests(table), shard_digests(table.assign(id=table["id"] + table["split"]))
    placed = shard_digests(table.assign(id=table["id"] + table["split"] + table["path"]))
    rows = [
        {"shard": s, "images": 1, "digest": d, "listed": listed[s], "placed": placed[s]} for s, d in content.items()
    ]
    pd.DataFrame(rows).to_csv(folder / "shards.csv", index=False)
    folder.joinpath("skipped.csv").write_text("path,reason\n")
    world = folder / "world" / "ImageSets" / "Main"
    record = Record("manifest", 1, {"dataset": {"kind": "demo"}}, [world / "train.txt", world / "val.txt"])
    record.facts = {"root": str(folder / "world"), "train": 4, "test": 2, "skipped": 0}
    names = ("images.parquet", "shards.csv", "skipped.csv")
    record.write(folder / "images.json", {name: file_digest(folder / name) for name in names})


def encode(folder, shard, block, seed=0):
    images = folder / "images.parquet"
    rows = read_manifest(images, shard=shard)
    group, written = folder / "views.zarr", {}
    layout = view_specs(len(rows), WIDTH, SHARD, PER_JOB, PER_JOB)
    for name in ("global", "crops", "boxes") if block == 0 else ("crops", "boxes"):
        path = view_chunk_file(group, name, shard, None if name == "global" else block)
        shape = [*([] if name == "global" else [PER_JOB]), len(rows), *layout[name].shape[-1:]]
        chunk = values([seed, shard, block, len(name)], *shape).astype(layout[name].dtype)
        written[str(path.relative_to(group))] = write_chunk(path, chunk, layout[name])
    facts = {"weights": "abc", "rows": shard_digests(rows)[shard]}
    Record("encode", 1, {"cut": {"seed": seed}}, [images], facts).write(view_chunk_record(group, shard, block), written)


def seal_views(folder):
    images, group = folder / "images.parquet", folder / "views.zarr"
    rows, known = read_manifest(images), {}
    for path in sorted(folder.glob("views.records/*.json")):
        known |= pd.read_json(path, typ="series")["outputs"]
    record = Record("seal", 1, {"cut": {"passes": PASSES}}, [images], {"width": WIDTH})
    layout = view_specs(len(rows), WIDTH, SHARD, PASSES, PER_JOB)
    coordinates = {"image": list(rows["id"]), "pass": np.arange(PASSES), "edge": list("ltrbf")}
    digest = finalize(group, layout, coordinates, {"width": WIDTH}, known)
    record.write(folder / "views.json", {group.name: digest, **{f"{group.name}/{k}": d for k, d in known.items()}})


def make_zarr(stage, path, settings, inputs, layout, coordinates, seed=0):
    record = Record(stage, 1, settings, inputs)
    with new_group(path, layout, coordinates) as group:
        for name, spec in layout.items():
            group[name][...] = values(seed + len(name), *spec.shape).astype(spec.dtype)
    record.write_beside(path)


def make_files(stage, folder, record, names, inputs, seed=0):
    for name in names:
        folder.joinpath(name).write_text(f"{stage} {name} {seed} {folder.name}\n")
    outputs = {name: input_digest(folder / name) for name in names}
    Record(stage, 1, {stage: {"seed": seed}}, inputs).write(folder / record, outputs)


def make_cut(folder):
    """Write everything from the images to the logits, and the truth."""
    folder.mkdir(parents=True, exist_ok=True)
    make_world(folder)
    make_manifest(folder)
    images = folder / "images.parquet"
    make_files("truth", folder, "truth.json", ["truth.parquet"], [images])
    make_files("tiny_clip", folder, "cutsew-tiny.safetensors.json", ["cutsew-tiny.safetensors"], [])
    text = {"text": ArraySpec((2, WIDTH), "float32", ("class", "embedding"), (2, WIDTH))}
    make_zarr("text", folder / "text.zarr", {"classes": CLASSES}, [], text, {"class": CLASSES})
    for shard in (0, 1):
        for block in (0, 1):
            encode(folder, shard, block)
    seal_views(folder)
    make_logits(folder)


def make_logits(folder, seed=0):
    coordinates = {"image": IDS, "class": CLASSES, "pass": np.arange(PASSES)}
    inputs = [folder / "views.zarr" / "zarr.json", folder / "text.zarr" / "zarr.json"]
    layout = logit_specs(len(IDS), 2, PASSES, SHARD)
    make_zarr("score", folder / "logits.zarr", {"score": {"epsilon": 1e-6}}, inputs, layout, coordinates, seed)
    make_files(
        "select", folder, "patches.json", ["patches.parquet"], [folder / "images.parquet", folder / "logits.zarr"]
    )


def make_label(stage, folder, name, inputs, seed):
    coordinates = {"image": IDS, "class": CLASSES}
    layout = {"z": label_spec(len(IDS), 2, SHARD)}
    make_zarr(stage, folder / name, {stage: {"seed": seed}}, inputs, layout, coordinates, seed)


def make_sew(base, folder, seed=0):
    """Write everything after the logits into a run's folder, from the logits of the base run."""
    folder.mkdir(parents=True, exist_ok=True)
    images, logits = base / "images.parquet", base / "logits.zarr" / "zarr.json"
    fused, pseudo, refined = (folder / f"{name}.zarr" for name in ("fused", "pseudo", "refined"))
    make_label("fuse", folder, "fused.zarr", [logits], seed)
    make_label("correct", folder, "pseudo.zarr", [fused], seed)
    trained = [images, pseudo, base / "patches.parquet"]
    names = ["adapter.safetensors", "model.yaml", "history.csv"]
    make_files("train", folder, "adapter.json", names, trained, seed)
    make_label("train", folder, "refined.zarr", trained, seed)
    make_label("predict", folder, "scores.zarr", [images, *(folder / name for name in names[:2])], seed)
    chosen_on = [folder / "scores.zarr", refined, logits]
    make_files("thresholds", folder, "thresholds.json", ["thresholds.csv"], chosen_on, seed)
    make_maps(base, folder, seed)
    measured = [images, base / "logits.zarr", fused, pseudo, refined, folder / "scores.zarr", base / "truth.parquet"]
    measured += [folder / "thresholds.csv", make_reference(base)]
    tables = ["metrics.csv", "per_class.csv", "confidence.csv", "agreement.csv", "thresholds_f1.csv"]
    make_files("evaluate", folder, "metrics.json", tables, measured, seed)
    shown = [*measured, folder / "metrics.csv", folder / "history.csv", base / "views.zarr", folder / "maps.zarr"]
    make_files("report", folder, "report.json", ["report.html", "scenes.png"], shown, seed)


def make_maps(base, folder, seed):
    layout = map_specs((1, 2, 2), (1, 3, 3), (2, WIDTH), 5)
    coordinates = {
        "image": AuxiliaryCoordinate("pair", IDS[-1:]),
        "class": AuxiliaryCoordinate("pair", CLASSES[:1]),
        "sample": IDS[-2:],
    }
    given = [base / "images.parquet", folder / "adapter.safetensors", folder / "model.yaml", folder / "scores.zarr"]
    given += [base / "views.zarr", base / "text.zarr"]
    make_zarr("explain", folder / "maps.zarr", {"explain": {"seed": seed}}, given, layout, coordinates, seed)


def make_reference(base):
    """Write the reference student that all runs share, if it is not there; return its scores."""
    folder, images = base / "references" / "supervised", base / "images.parquet"
    names = ["adapter.safetensors", "model.yaml", "history.csv"]
    if not folder.exists():
        make_label("reference_labels", folder, "labels.zarr", [images, base / "truth.parquet"], 0)
        make_files("train", folder, "adapter.json", names, [images, folder / "labels.zarr"], 0)
        make_label("train", folder, "refined.zarr", [images, folder / "labels.zarr"], 0)
        make_label("predict", folder, "scores.zarr", [images, *(folder / name for name in names[:2])], 0)
    return folder / "scores.zarr"


def make_runs(folder: Path) -> Path:
    """Write a base run and the variant `other`; return the base run's folder."""
    base = folder / "results" / "tiny" / "default"
    make_cut(base)
    make_sew(base, base)
    make_sew(base, base.with_name("other"), seed=1)
    return base


def flip(path, at=None):
    """Change one bit of a file in place; its time stays, so that only a digest tells."""
    content, times = bytearray(path.read_bytes()), path.stat()
    content[len(content) // 2 if at is None else at] ^= 1
    path.write_bytes(bytes(content))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
