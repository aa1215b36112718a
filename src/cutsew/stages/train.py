"""Stage train: the adapter on sewn images, and the pseudo-labels with it (Eq. 11-20)."""

import hashlib
import json
import logging
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
import typer

from cutsew.config.method import parse_correct, parse_sew
from cutsew.config.networks import parse_student
from cutsew.config.training import parse_train
from cutsew.errors import UserError
from cutsew.method.correct import correct
from cutsew.method.schedule import FEWEST_STEPS, automatic_epochs, longer_training
from cutsew.models.student import MODEL, BackboneFactory, build_backbone, save
from cutsew.pipeline.graph import STAGES
from cutsew.provenance.record import Record, input_digest
from cutsew.runtime.device import device_facts, pick_device
from cutsew.stages.options import DeviceOption, SettingsOption, WorkersOption
from cutsew.storage.csv_rows import write_csv
from cutsew.storage.file_digests import file_digest
from cutsew.storage.manifest import batched_slices, read_manifest
from cutsew.storage.predictions import images_at_once
from cutsew.storage.zarr_layout import folder_of, label_spec
from cutsew.storage.zarr_reader import array_of, labels_of, open_group, read_rows
from cutsew.storage.zarr_writer import write_group
from cutsew.training.cache_policy import CachePolicy, open_feature_cache
from cutsew.training.distributed import ProcessGroup, launch_workers
from cutsew.training.features import computed_features, feature_source, run_feature_worker
from cutsew.training.linear import budget_of, feature_settings, fit_linear
from cutsew.training.sewing_plan import read_training_images
from cutsew.training.sewn_dataset import steps_per_epoch
from cutsew.training.trainer import Checkpoint, Trainer, TrainingResult, new_adapter

log = logging.getLogger(__name__)


def train(
    images: Annotated[Path, typer.Argument(help="images.parquet")],
    labels: Annotated[Path, typer.Argument(help="pseudo.zarr, fused.zarr or logits.zarr, as train.labels says")],
    adapter: Annotated[Path, typer.Argument(help="adapter.safetensors, written with the files next to it")],
    *,
    settings: SettingsOption,
    patches: Annotated[Path | None, typer.Option(help="patches.parquet; needed where images are sewn.")] = None,
    device: DeviceOption = "auto",
    workers: WorkersOption = 0,
    checkpoint_seconds: Annotated[
        float, typer.Option(min=0, help="Minimum interval between checkpoints, in seconds.")
    ] = 30,
    processes: Annotated[int, typer.Option(min=1, help="Processes that train together, each on its own GPU.")] = 1,
    features: Annotated[Path | None, typer.Option(help="Folder of the cache of features of sewn images.")] = None,
    cache_features: Annotated[
        str, typer.Option(help="Size limit of that cache: auto, off or a number of GB.")
    ] = "auto",
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
    build: BackboneFactory = build_backbone,
    policy: CachePolicy | None = None,
) -> None:
    """Train with a backbone that `build` makes; otherwise as `train`."""
    student, rules = parse_student(settings["student"]), parse_train(settings["train"])
    sew = parse_sew(settings["sew"])
    if student.kind == "none":
        raise UserError("student.kind: none has nothing to train; set open_clip or timm")
    if sew.kind != "none" and patches is None:
        raise UserError("--patches: not given, and sew.kind is overlays; name patches.parquet")
    pasted = patches if sew.kind != "none" else None
    record = Record("train", STAGES["train"].version, settings, [images, labels, *([pasted] if pasted else [])])
    image_rows = read_manifest(images, split="train", columns=("id", "path", "width", "height", "digest", "split"))
    if image_rows.empty:
        raise UserError("dataset: no images to train on; hold out fewer")
    z = _read_labels(labels, image_rows, settings["classes"])
    training_images = read_training_images(image_rows, pasted)
    ids = pd.Index(image_rows["id"])
    del image_rows  # of a million images 0.05 GB beside what is kept
    per_epoch = steps_per_epoch(len(ids), rules.batch_size)
    if rules.head == "adapter" and rules.epochs == "auto":
        rules = rules.model_copy(update={"epochs": automatic_epochs(per_epoch)})
    torch_device = pick_device(device)
    group = ProcessGroup.init(torch_device)
    backbone = build(student, torch_device)
    if rules.head == "linear":
        plan = budget_of(backbone, len(ids), rules)
        feature_rules = feature_settings(plan, rules)
    else:
        feature_rules = rules
    computed = computed_features(backbone, training_images, sew, feature_rules, torch_device, workers)
    if group.rank > 0:
        run_feature_worker(computed, group)
        group.destroy()
        return
    checkpoint = Checkpoint(adapter.parent, _signature(record, backbone.weights_digest), checkpoint_seconds)
    cache = open_feature_cache(policy, computed, group.size)
    with feature_source(computed, group, cache) as features:
        if rules.head == "linear":
            result = fit_linear(
                features, plan, z, settings=rules, seed=rules.seed, checkpoint=checkpoint, device=torch_device
            )
        else:
            _refuse_single_values(len(ids), rules.batch_size, backbone.grid)
            head = new_adapter(backbone.width, z.shape[1], rules.adapter, backbone.grid, rules.seed).to(torch_device)
            result = Trainer(head, torch.from_numpy(z).to(torch_device), rules, per_epoch, checkpoint).fit(features)
    group.destroy()
    corrects_again = rules.head == "adapter" and rules.correct_refined
    _write_labels(adapter, result, ids, settings, corrects_again)
    sizes = rules.adapter.model_dump() if rules.head == "adapter" else {}
    save(adapter, result.adapter, backbone, sizes, settings["classes"])
    record.facts = {
        **device_facts(torch_device),
        "processes": group.size,
        "weights": backbone.weights_digest,
        "images": len(ids),
        "features": None if cache is None else cache.path.name,
    }
    _write_records(record, adapter, result)
    checkpoint.remove()


def _refuse_single_values(images: int, batch_size: int, grid: tuple[int, int]) -> None:
    """Refuse a batch with a single value per channel, of which BatchNorm cannot take a variance."""
    if grid == (1, 1) and min(images, batch_size) == 1:
        raise UserError("train.batch_size: with a grid of one cell a batch needs at least two images; use more")


def _read_labels(path: Path, images: pd.DataFrame, classes: list[str]) -> npt.NDArray[np.float32]:
    """Read the labels of the training rows: array z, or zero_shot where there is no z."""
    group = open_group(path)
    z = array_of(group, "z" if "z" in group else "zero_shot")
    if labels_of(group, "class") != classes:
        raise UserError(f"{folder_of(path)}: its classes are not those of the settings; run the workflow again")
    names, ids, rows = array_of(group, "image"), pd.Index(images["id"]), images["row"].to_numpy()
    values = np.empty((len(rows), len(classes)), dtype=np.float32)
    if len(rows) and rows.max() >= names.shape[0]:
        raise UserError(f"{folder_of(path)}: its images are not those of images.parquet; run the workflow again")
    for part in batched_slices(len(rows), images_at_once(len(classes))):
        if (read_rows(names, rows[part]).astype(object) != ids[part].to_numpy(dtype=object)).any():
            raise UserError(f"{folder_of(path)}: its images are not those of images.parquet; run the workflow again")
        values[part] = read_rows(z, rows[part])
        if not np.isfinite(values[part]).all():
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
    if len(result.history) < FEWEST_STEPS:
        log.warning(
            "trained for %d steps only, which are too few to learn; set %s",
            len(result.history),
            longer_training(record.settings["train"]["head"]),
        )
    record.facts["parameters"] = sum(weight.numel() for weight in result.adapter.parameters())
    outputs = {name: file_digest(adapter.with_name(name)) for name in (adapter.name, MODEL, "history.csv")}
    record.write(adapter.with_suffix(".json"), outputs)
    record.write_beside(adapter.with_name("refined.zarr"))


def _write_labels(
    adapter: Path, result: TrainingResult, ids: pd.Index, settings: dict[str, Any], correct_refined: bool
) -> None:
    """Write refined.zarr and history.csv next to the adapter."""
    z = result.z
    if correct_refined:
        rule = parse_correct(settings["correct"])
        z, _ = correct(z, **rule.model_dump())
    spec = label_spec(*z.shape)
    coordinates = {"image": ids, "class": settings["classes"]}
    write_group(adapter.with_name("refined.zarr"), {"z": (spec, z)}, coordinates, {})
    write_csv(adapter.with_name("history.csv"), pd.DataFrame(result.history))
