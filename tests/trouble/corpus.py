"""All cases."""

from trouble import annotations, artifacts, configs, containers, images, models, scores

CASES = [
    case for part in (images, containers, annotations, scores, configs, artifacts, models) for case in part.cases()
]
