"""All cases."""

from trouble import annotations, artifacts, configs, containers, images, models, places, scores

CASES = [
    case
    for part in (images, containers, annotations, scores, configs, places, artifacts, models)
    for case in part.cases()
]
