"""Where a training photo was sewn. Plans are drawn anew: they depend on seed, epoch and content alone."""

from tqdm import tqdm

from cutsew.artefacts.record import input_digest
from cutsew.artefacts.tables import read_parquet
from cutsew.audit.run import PATCHES, Run
from cutsew.audit.values import Content
from cutsew.config.method import Sew
from cutsew.config.student import Train
from cutsew.errors import UserError
from cutsew.training.album import Album, read_album, sewing_plan

BAR_FROM = 20_000
"""Plans from which drawing them shows a progress bar: some seconds."""


def patches_of(run: Run, name: str) -> list[Content]:
    """List the places of a photo in the patch set: class, rank from 0, salience, and k, the photos per class."""
    path = run.path(PATCHES)
    if path is None:
        return []
    table = read_parquet(path, ["class", "rank", "image", "score"])
    k = int(table["rank"].max()) + 1 if len(table) else 0
    return [
        {"class": str(row["class"]), "rank": int(row["rank"]), "score": float(row["score"]), "of": k}
        for row in table[table["image"] == name].to_dict("records")
    ]


def sewn(run: Run, name: str, epochs: int | None = None) -> Content | None:
    """List what was pasted onto a training photo, and what it was pasted onto.

    Args:
        run: the run.
        name: the photo's id.
        epochs: how many epochs to look through; None for all.

    Returns:
        `as_background`: epoch, overlays (image and box, bottom first; none in some epochs); `as_overlay`: epoch,
        background and box. Boxes are left, top, right, bottom in pixels of the background. None where no student was
        trained, or the photo is not a training photo.

    Raises:
        UserError: the patches are not there, or not those that were pasted, so that the plans cannot be drawn anew.

    """
    trained = "refined.zarr"
    made = run.record(trained)
    photos = run.images[run.images["split"] == "train"].reset_index(drop=True)
    if made is None or made.stage != "train" or not (photos["id"] == name).any():
        return None
    sew, train = run.settings(trained, "sew", Sew), run.settings(trained, "train", Train)
    sewn_epochs = int(made.content["facts"]["sewn_epochs"])
    looked = min(sewn_epochs, epochs or sewn_epochs)
    pasted = [path for path in made.inputs if path.name == PATCHES]
    for path in pasted:
        if path.is_file() and input_digest(path) != made.inputs[path]:
            raise UserError(f"{path}: not the one that the training pasted from; run the workflow again")
    album = read_album(photos, pasted[0] if sew.enabled and pasted else None)
    place, ids = int((photos["id"] == name).to_numpy().argmax()), photos["id"].tolist()
    return {
        "enabled": sew.enabled,
        "seed": train.seed,
        "epochs": sewn_epochs,
        "epochs_looked_through": looked,
        "as_background": _as_background(album, sew, train.seed, looked, place, ids),
        "as_overlay": _as_overlay(album, sew, train.seed, looked, place, ids),
    }


def _as_background(album: Album, sew: Sew, seed: int, epochs: int, place: int, ids: list[str]) -> list[Content]:
    found: list[Content] = []
    for epoch in range(epochs if sew.enabled else 0):
        drawn = sewing_plan(album, sew, seed, epoch, place)
        pairs = zip(drawn.overlays.tolist(), drawn.boxes.tolist(), strict=True)
        found.append({"epoch": epoch, "overlays": [{"image": ids[other], "box": box} for other, box in pairs]})
    return found


def _as_overlay(album: Album, sew: Sew, seed: int, epochs: int, place: int, ids: list[str]) -> list[Content]:
    """Look through the plans of all photos; none need be drawn for a photo that is not in the patch set."""
    if not sew.enabled or place not in album.pool:
        return []
    found: list[Content] = []
    plans = ((epoch, other) for epoch in range(epochs) for other in range(len(ids)))
    total = epochs * len(ids)
    for epoch, other in tqdm(plans, desc="sewing plans", total=total, unit="plan", disable=total < BAR_FROM):
        drawn = sewing_plan(album, sew, seed, epoch, other)
        for overlay, box in zip(drawn.overlays.tolist(), drawn.boxes.tolist(), strict=True):
            if overlay == place:
                found.append({"epoch": epoch, "background": ids[other], "box": box})
    return found
