"""All cases."""

from trouble import annotations, artifacts, configs, images, models, scores

CASES = [case for part in (images, annotations, scores, configs, artifacts, models) for case in part.cases()]
