"""Stage train: the adapter on sewn photos, and the pseudo-labels with it (Eq. 11-20)."""

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
import typer

from cutsew.config.method import Correct, Sew
from cutsew.config.networks import Adapter, Linear, Student, Train
from cutsew.errors import UserError
from cutsew.method.correct import correct
from cutsew.method.schedule import automatic_epochs
from cutsew.models.student import MODEL, Build, build_backbone, save
from cutsew.pipeline.graph import STAGES
from cutsew.provenance.record import Record, input_digest
from cutsew.runtime.device import device_facts, pick_device
from cutsew.stages.options import DeviceOption, SettingsOption, WorkersOption
from cutsew.storage.atomic import replacing
from cutsew.storage.manifest import read_manifest
from cutsew.storage.zarr_layout import folder_of, label_spec
from cutsew.storage.zarr_reader import array_of, labels_of, open_group, read_rows
from cutsew.storage.zarr_writer import file_digest, write_group
from cutsew.training.cache_policy import CachePolicy, open_feature_cache
from cutsew.training.distributed import ProcessGroup, launch_workers
from cutsew.training.features import computed_features, feature_source, run_feature_worker
from cutsew.training.linear import budget_of, feature_settings, fit_linear
from cutsew.training.sewing_plan import read_training_images
from cutsew.training.sewn_dataset import steps_per_epoch
from cutsew.training.trainer import Checkpoint, Trainer, TrainingResult, new_adapter

ROWS_PER_CHUNK = 65536
"""Images in one chunk of refined.zarr."""


def train(
    images: Annotated[Path, typer.Argument(help="images.parquet")],
    labels: Annotated[Path, typer.Argument(help="pseudo.zarr, fused.zarr or logits.zarr, as train.labels says")],
    adapter: Annotated[Path, typer.Argument(help="adapter.safetensors, written with the files next to it")],
    *,
    settings: SettingsOption,
    patches: Annotated[Path | None, typer.Option(help="patches.parquet; needed where photos are sewn.")] = None,
    device: DeviceOption = "auto",
    workers: WorkersOption = 0,
    checkpoint_seconds: Annotated[float, typer.Option(min=0, help="Least seconds between checkpoints.")] = 30,
    processes: Annotated[int, typer.Option(min=1, help="Processes that train together, each on its own GPU.")] = 1,
    features: Annotated[Path | None, typer.Option(help="Folder in which features of sewn photos are kept.")] = None,
    cache_features: Annotated[str, typer.Option(help="How much may lie there: auto, off or a number of GB.")] = "auto",
) -> None:
    """Train the adapter and refine the pseudo-labels (Eq. 11-20)."""
    launch_workers(processes, device)
    policy = None if features is None else CachePolicy(features, cache_features)
    run(images, labels, adapter, settings, patches, device, workers, checkpoint_seconds, policy=policy)


def run(
    images: Path,
    labels: Path,
    adapter: Path,
    settings: dict[str, Any],
    patches: Path | None,
    device: str,
    workers: int,
    checkpoint_seconds: float,
    build: Build = build_backbone,
    policy: CachePolicy | None = None,
) -> None:
    """Train with a backbone that `build` makes; otherwise as `train`."""
    student, sizes = Student.model_validate(settings["student"]), Adapter.model_validate(settings.get("adapter", {}))
    sew, rules = Sew.model_validate(settings["sew"]), Train.model_validate(settings["train"])
    linear = Linear.model_validate(settings.get("linear", {}))
    if student.kind == "none":
        raise UserError("student.kind: none has nothing to train; set open_clip or timm")
    if sew.enabled and patches is None:
        raise UserError("--patches: not given, and sew.enabled is true; name patches.parquet")
    pasted = patches if sew.enabled else None
    record = Record("train", STAGES["train"].version, settings, [images, labels, *([pasted] if pasted else [])])
    photos = read_manifest(images, split="train")
    if photos.empty:
        raise UserError("dataset: no photos to train on; hold out fewer")
    z = _read_labels(labels, photos, settings["classes"])
    training_images = read_training_images(photos, pasted)
    per_epoch = steps_per_epoch(len(photos), rules.batch_size)
    if rules.epochs == "auto":
        rules = rules.model_copy(update={"epochs": automatic_epochs(per_epoch)})
    where = pick_device(device)
    group = ProcessGroup.init(where)
    backbone = build(student, where)
    plan = budget_of(backbone, len(photos), linear) if student.head == "linear" else None
    feature_rules = rules if plan is None else feature_settings(plan, linear, rules.seed)
    computed = computed_features(backbone, training_images, sew, feature_rules, where, workers)
    if group.rank > 0:
        run_feature_worker(computed, group)
        group.destroy()
        return
    checkpoint = Checkpoint(adapter.parent, _signature(record, backbone.weights_digest), checkpoint_seconds)
    cache = open_feature_cache(policy, computed, group.size)
    with feature_source(computed, group, cache) as features:
        if plan is not None:
            result = fit_linear(
                features, plan, z, settings=linear, seed=rules.seed, checkpoint=checkpoint, device=where
            )
        else:
            _refuse_single_values(len(photos), rules.batch_size, backbone.grid)
            head = new_adapter(backbone.width, z.shape[1], sizes, backbone.grid, rules.seed).to(where)
            result = Trainer(head, torch.from_numpy(z).to(where), rules, per_epoch, checkpoint).fit(features)
    group.destroy()
    _write_labels(adapter, result, list(photos["id"]), settings, rules.correct_after)
    save(adapter, result.adapter, backbone, {} if student.head == "linear" else sizes.model_dump(), settings["classes"])
    record.facts = {
        **device_facts(where),
        "processes": group.size,
        "weights": backbone.weights_digest,
        "photos": len(photos),
        "features": None if cache is None else cache.path.name,
    }
    _write_records(record, adapter, result)
    checkpoint.remove()


def _refuse_single_values(images: int, batch_size: int, grid: tuple[int, int]) -> None:
    """Refuse a batch with a single value per channel, of which BatchNorm cannot take a variance."""
    if grid == (1, 1) and min(images, batch_size) == 1:
        raise UserError("train.batch_size: with a grid of one cell a batch needs at least two photos; use more")


def _read_labels(path: Path, photos: pd.DataFrame, classes: list[str]) -> npt.NDArray[np.float32]:
    """Read the labels of the training rows: array z, or zero_shot where there is no z."""
    group = open_group(path)
    z = array_of(group, "z" if "z" in group else "zero_shot")
    if labels_of(group, "class") != classes:
        raise UserError(f"{folder_of(path)}: its classes are not those of the settings; run the workflow again")
    ids, rows = np.asarray(labels_of(group, "image"), dtype=object), photos["row"].to_numpy()
    if len(rows) and (rows.max() >= len(ids) or (ids[rows] != photos["id"].to_numpy(dtype=object)).any()):
        raise UserError(f"{folder_of(path)}: its images are not those of images.parquet; run the workflow again")
    values = read_rows(z, rows).astype(np.float32)
    if not np.isfinite(values).all():
        raise UserError(f"{folder_of(path)}: holds labels that are not finite; run the workflow again")
    return values


def _signature(record: Record, weights_digest: str) -> str:
    """Digest what the result depends on, so that a checkpoint of another training is not resumed."""
    inputs = [input_digest(path) for path in record.inputs]
    content = [record.stage, record.version, record.settings, inputs, weights_digest]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _write_records(record: Record, adapter: Path, result: TrainingResult) -> None:
    """Write adapter.json and refined.json."""
    record.facts |= {"steps": len(result.history), **result.facts}
    record.facts["parameters"] = sum(weight.numel() for weight in result.adapter.parameters())
    outputs = {name: file_digest(adapter.with_name(name)) for name in (adapter.name, MODEL, "history.csv")}
    record.write(adapter.with_suffix(".json"), outputs)
    record.write_beside(adapter.with_name("refined.zarr"))


def _write_labels(
    adapter: Path, result: TrainingResult, ids: list[str], settings: dict[str, Any], correct_after: bool
) -> None:
    """Write refined.zarr and history.csv next to the adapter."""
    z = result.z
    if correct_after:
        rule = Correct.model_validate(settings["correct"])
        z, _ = correct(z, rule.rule, rule.beta, rule.linear_alpha)
    spec = label_spec(len(z), z.shape[1], min(ROWS_PER_CHUNK, len(z)))
    coordinates = {"image": ids, "class": settings["classes"]}
    write_group(adapter.with_name("refined.zarr"), {"z": (spec, z)}, coordinates, {})
    with replacing(adapter.with_name("history.csv")) as draft:
        pd.DataFrame(result.history).to_csv(draft, index=False)
