"""What every view of one image said, and which of them won."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from cutsew.audit.run import Run
from cutsew.audit.summary import JsonDict, format_score
from cutsew.config.method import Fuse, MaxFusionConfig, SoftFusionConfig, TagClipConfig, parse_fuse, parse_score
from cutsew.method.fuse import WHOLE, standardized, suppressed_crops
from cutsew.method.score import logit, sigmoid
from cutsew.pipeline.fusing import similarities, softened_by
from cutsew.storage.text_embeddings import read_texts
from cutsew.storage.zarr_layout import CROPS, TAGCLIP_GLOBAL, TAGCLIP_LOCAL, Answers
from cutsew.storage.zarr_reader import array_of, labels_of, open_group, read

if TYPE_CHECKING:
    import zarr

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Patches:
    """TagCLIP's answers, where they stand in the place of the views'.

    Attributes:
        local: (C,) score of each class's best patch.
        again: (C,) probability in the second look, NaN where there was none.
        settings: of the method.

    """

    local: Floats
    again: Floats
    settings: TagClipConfig


@dataclass(frozen=True)
class Cutting:
    """One image's answers; only its own rows are read.

    Attributes:
        zero_shot: (C,) logits of the whole image; NaN throughout where the teacher did not score it. With rule soft
            these and the crops' are the softened ones that were fused.
        crops: (M, C) logits of the crops; M is 0 where they are not kept.
        boxes: (M, 5) left, top, right, bottom in pixels and flipped or not; None for scores made elsewhere.
        fused: (C,) logits; None where nothing was fused.
        winner: (C,) view that gave the fused value, WHOLE or a pass; None where nothing was fused.
        rule: how they were fused.
        epsilon: clamp of probabilities; None where the logits are a sigmoid's.
        patches: TagCLIP's answers, which were fused and no view's; None where views were fused.
        standard: (1 + M, C) answers as rule standard compares them, the whole image first; None with other rules.

    """

    zero_shot: Floats
    crops: Floats
    boxes: Floats | None
    fused: Floats | None
    winner: npt.NDArray[np.int16] | None
    rule: Fuse
    epsilon: float | None
    patches: Patches | None = None
    standard: npt.NDArray[np.float64] | None = None

    @property
    def counted(self) -> Floats:
        """The crops that were fused: all, but where `fuse.passes` says fewer, and none where patches were."""
        return self.crops[: 0 if self.patches else self.rule.passes]

    @property
    def fusion(self) -> JsonDict:
        """How the answers were fused."""
        if self.patches is not None:
            return {"rule": "tagclip", "weight": self.patches.settings.weight}
        return self.rule.model_dump(mode="json")

    def views(self, classes: list[str], top: int) -> list[JsonDict]:
        """List the top predictions of each view, the whole image first."""
        if not np.isfinite(self.zero_shot).all():
            return []
        result: list[JsonDict] = []
        for number, z in enumerate([self.zero_shot, *self.crops], start=WHOLE):
            box = self.boxes[number].tolist() if self.boxes is not None and number != WHOLE else None
            order = np.argsort(-z, kind="stable")[:top]
            result.append(
                {
                    "view": "whole" if number == WHOLE else number,
                    "box": box[:4] if box else None,
                    "flipped": bool(box[4]) if box else None,
                    "fused": number < len(self.counted) and self.patches is None,
                    "top": [{"class": classes[c], **(format_score(z[c]) or {})} for c in order],
                }
            )
        return result

    def of_class(self, c: int) -> JsonDict:
        """Return how the views produced one class's fused value."""
        best = self._best_crop(c) if len(self.counted) and np.isfinite(self.zero_shot[c]) else None
        content: JsonDict = {"zero_shot": format_score(self.zero_shot[c]), "best_crop": None}
        if best is not None and self.standard is not None:
            content["standardized"] = {"whole": self.standard[0, c], "best_crop": self.standard[1 + best, c]}
        if best is not None:
            z = self.counted[best, c]
            content["best_crop"] = {
                "pass": best,
                **(format_score(z) or {}),
                "suppressed": format_score(self._suppressed(z)),
            }
        if self.patches is not None:
            again = self.patches.again[c]
            content["best_patch"] = float(self.patches.local[c])
            content["second_look"] = None if np.isnan(again) else float(again)
        if self.fused is not None and self.winner is not None:
            content["fused"] = format_score(self.fused[c])
        if self.fused is not None and self.winner is not None and self.patches is None:
            content["winner"] = "whole" if self.winner[c] == WHOLE else int(self.winner[c])
            content["held_back"] = self._held_back(c, int(self.winner[c]))
        return content

    def _best_crop(self, c: int) -> int:
        """Return the crop that says most about a class, as the rule compares them."""
        compared = self.counted if self.standard is None else self.standard[1 : 1 + len(self.counted)]
        return int(compared[:, c].argmax())

    def _suppressed(self, z: np.float32) -> float:
        """Return what counts of a crop's logit in the fusion, as a logit."""
        if isinstance(self.rule, MaxFusionConfig) and self.rule.space == "probability":
            return float(logit(sigmoid(np.array(z)) - self.rule.alpha, self.epsilon))
        if isinstance(self.rule, (MaxFusionConfig, SoftFusionConfig)):  # rule soft: softened already
            return float(z - np.float32(self.rule.alpha))
        return float(z)

    def _held_back(self, c: int, winner: int) -> list[int]:
        """Return the passes that lost only to alpha or the gate, most confident first; other rules use all views."""
        if self.rule.rule not in ("max", "gated"):
            return []
        column = self.counted[:, c]
        held = suppressed_crops(self.zero_shot[None, [c]], column[:, None, None], np.array([[winner]]))[:, 0, 0]
        return [int(k) for k in np.argsort(-column, kind="stable") if held[k]]


def cutting(run: Run, name: str) -> Cutting:
    """Read what the views of one image said."""
    logits = run.path("logits.zarr")
    assert logits is not None  # noqa: S101  # Run refuses a folder without it
    scored = open_group(logits)
    row = labels_of(scored, "image").index(name)
    zero_shot = np.asarray(read(array_of(scored, "zero_shot"), row), dtype=np.float32)
    rule = run.settings("fused.zarr", "fuse", parse_fuse)
    scoring = run.settings("fused.zarr", "score", parse_score)
    crops = _crops(run, scored, row, scoring.epsilon)
    boxes, fused, winner = None, None, None
    if (views := run.path("views.zarr")) is not None and len(crops):
        seen = open_group(views)
        place = labels_of(seen, "image").index(name)
        boxes = np.asarray(read(array_of(seen, "boxes"), (slice(len(crops)), place)), dtype=np.float32)
    if (path := run.path("fused.zarr")) is not None:
        labels = open_group(path)
        place = labels_of(labels, "image").index(name)
        fused, winner = read(array_of(labels, "z"), place), read(array_of(labels, "winner"), place)
    answers = Answers.of(scored)
    epsilon = scoring.epsilon if answers.activation == "softmax" else None
    if rule.rule == "soft" and (result := run.record("fused.zarr")) is not None:
        factor = float(result.content["facts"]["soften"])
        zero_shot, crops = (
            softened_by(z, factor, scoring.epsilon, answers).astype(np.float32) for z in (zero_shot, crops)
        )
        rule = rule.model_copy(update={"soften": factor})
    patches = _patches(run, name, scoring.tagclip) if scoring.rule == "tagclip" else None
    standard = None
    if rule.rule == "standard" and patches is None:
        standard = standardized(similarities(np.concatenate([zero_shot[None], crops]), answers))
    return Cutting(zero_shot, crops, boxes, fused, winner, rule, epsilon, patches, standard)


def _crops(run: Run, scored: "zarr.Group", row: int, epsilon: float) -> Floats:
    """Return the (M, C) logits of one image's crops: as stored, or as `score` computed them before it dropped them.

    M is 0 where they are neither stored nor can be computed again.
    """
    classes = array_of(scored, "class").shape[0]
    if "crops" in scored:
        return np.asarray(read(array_of(scored, "crops"), (slice(None), row)), dtype=np.float32)
    views, text = run.path("views.zarr"), run.path("text.zarr")
    if "highest" not in scored or views is None or text is None:
        return np.zeros((0, classes), np.float32)
    embeddings = read(array_of(open_group(views), CROPS), (slice(None), row))
    with threadpool_limits(1):  # as in `score`: a product's last bits could depend on the number of threads
        return read_texts(text).score(embeddings, epsilon)


def _patches(run: Run, name: str, settings: TagClipConfig) -> Patches | None:
    """Read what the patches of one image said; None where that is not there any more."""
    path = run.path("tagclip.zarr")
    if path is None:
        return None
    scored = open_group(path)
    row = labels_of(scored, "image").index(name)
    return Patches(read(array_of(scored, TAGCLIP_LOCAL), row), read(array_of(scored, TAGCLIP_GLOBAL), row), settings)
