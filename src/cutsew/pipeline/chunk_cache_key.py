"""What a stage's cached chunk files depend on besides the images."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cutsew.pipeline.graph import STAGES
from cutsew.runtime.device import numeric_environment

if TYPE_CHECKING:
    from cutsew.models.teachers import Teacher


def chunk_cache_key(
    stage: str, settings: Mapping[str, Any], teacher: "Teacher", device: str, **others: object
) -> dict[str, Any]:
    """Collect what a stage's values depend on besides the images; the size of the shards makes no difference.

    Args:
        stage: its name.
        settings: of the stage.
        teacher: that looks at the images.
        device: cpu, cuda or mps.
        others: whatever else the values depend on, plain JSON.

    """
    return {
        "version": STAGES[stage].version,
        "settings": {name: section for name, section in settings.items() if name != "dataset"},
        "weights": teacher.weights_digest,
        "preprocessing": teacher.preprocessing.describe(),
        **others,
        **numeric_environment(device),
    }
