"""The whole student, backbone included, in one safetensors file: neither a package nor a hub is asked for weights."""

from pathlib import Path
from typing import Any

import yaml
from safetensors.torch import save as serialised

from cutsew.artefacts.atomic import replacing, write_text
from cutsew.artefacts.store import file_digest
from cutsew.artefacts.thresholds import Thresholds
from cutsew.description import MODEL
from cutsew.student import WHOLE, Student

PARTS = ("backbone", "adapter")


def save(folder: Path, student: Student, description: dict[str, Any], thresholds: Thresholds) -> None:
    """Write student.safetensors and model.yaml, which `cutsew.student.load` reads.

    Args:
        folder: that they are written to.
        student: the classifier.
        description: model.yaml that it was loaded from.
        thresholds: from which probability each class counts as named.

    """
    modules = {"backbone": student.backbone.tower, "adapter": student.adapter}
    state = {
        f"{part}.{name}": value.detach().cpu().contiguous().clone()
        for part in PARTS
        for name, value in modules[part].state_dict().items()
    }
    with replacing(folder / WHOLE) as draft:
        draft.write_bytes(serialised(state))
    model = {name: value for name, value in description.items() if name not in ("adapter_digest", "digest")}
    model["backbone"] = student.backbone.describe()
    model |= {"weights": WHOLE, "digest": file_digest(folder / WHOLE)}
    model["thresholds"] = {"rule": thresholds.rule, **thresholds.by_rule}
    write_text(folder / MODEL, yaml.safe_dump(model, sort_keys=False, allow_unicode=True))
