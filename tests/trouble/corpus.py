"""All cases."""

from trouble import annotations, artefacts, configs, images, models, scores

CASES = [case for part in (images, annotations, scores, configs, artefacts, models) for case in part.cases()]
