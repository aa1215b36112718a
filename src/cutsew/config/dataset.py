"""Settings of the dataset: where the images and, if there are any, their true labels are."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, TypeAdapter, model_validator

from cutsew.config.base import QUERY, Location, OneOf, Section, Size, is_url
from cutsew.config.benchmarks import (
    BENCHMARK_SPECS,
    Benchmark,
    BenchmarkSpec,
    DownloadConfig,
    Protocol,
    Unannotated,
    protocols_of,
)

OnBadImage = Literal["stop", "skip"]


class TestSplitConfig(Section):
    """Which images are held out for evaluation; name one of the three, or none."""

    folder: str | None = Field(None, description="a folder below `dataset.root` whose images are all held out")
    list: Path | None = Field(None, description="a text file with one image path per line, relative to `dataset.root`")
    fraction: float | None = Field(
        None, gt=0, lt=1, description="fraction of the images to hold out, chosen by content digest"
    )

    @model_validator(mode="after")
    def at_most_one(self) -> Self:
        """Refuse two ways of splitting at once."""
        *names, last = type(self).model_fields
        if sum(getattr(self, name) is not None for name in (*names, last)) > 1:
            raise ValueError(f"name only one of {', '.join(names)} and {last}")
        return self


class ContainerTestSplitConfig(TestSplitConfig):
    """As of a folder; or whole tars or Parquet files."""

    files: str | None = Field(
        None, description="tars or Parquet files whose images are all held out: a pattern, as `dataset.files`"
    )


class VocLayoutConfig(Section):
    """Which lists of ImageSets/Main to read."""

    train: str = Field("train", description="list of the images to label and to train on")
    test: str | None = Field("val", description="list of the held-out images; null for none")


class CocoLayoutConfig(Section):
    """Which annotations/instances_<list>.json to read; the images lie in <list>/, images/<list>/ or images/."""

    train: str = Field("train2014", description="list of the images to label and to train on")
    test: str | None = Field("val2014", description="list of the held-out images; null for none")


class NusLayoutConfig(Section):
    """Which lists of ImageList/ to read, without `.txt`, or paths of lists of the same form."""

    train: str = Field("TrainImagelist", description="list of the images to label and to train on")
    test: str | None = Field("TestImagelist", description="list of the held-out images; null for none")


class DatasetConfig(Section):
    """What the kinds of a dataset have in common."""

    kind: str
    name: str = Field(
        "demo", pattern=r"^[A-Za-z0-9][A-Za-z0-9._=+-]*$", description="name of the folder under results/"
    )
    truth: Path | None = Field(
        None,
        description="CSV of true labels for evaluation only: columns path (or id) and labels, separated by ; (other "
        "forms: docs/reference/input-files.md)",
    )
    shard_size: Size = Field(4096, description="images per shard, the unit of one encoding job and one Zarr chunk")

    annotated: ClassVar[bool] = False
    """Whether the layout of the images holds true labels."""

    @property
    def location(self) -> Path | str | None:
        """Return the folder or URL of the images; None where the workflow makes them, or there are none."""
        return None

    @property
    def downloaded(self) -> bool:
        """Return whether the workflow fetches the images where they are not there."""
        return False

    @property
    def rebuilds_teacher(self) -> bool:
        """Return whether the workflow trains the demo's tiny CLIP."""
        return False

    def known(self) -> BenchmarkSpec | None:
        """Return what is published of this benchmark and protocol; None where there is nothing."""
        return None


class ImagesConfig(DatasetConfig):
    """A dataset of images, not of ids alone."""

    on_bad_image: OnBadImage = Field(
        "stop",
        description="whether an unreadable image, folder or listed name is an error, or is skipped and "
        "listed in skipped.csv",
    )


class DemoConfig(Section):
    """The embedded world of emoji images."""

    train: Size = Field(1200, description="unlabeled images")
    test: Size = Field(400, description="held-out images")
    seed: int = Field(0, description="seed of the synthetic world")
    rebuild_teacher: bool = Field(False, description="retrain the tiny CLIP instead of using the shipped weights")


class DemoDatasetConfig(ImagesConfig):
    """The demo's synthetic world, which the workflow writes in PASCAL VOC layout."""

    kind: Literal["demo"] = Field("demo", description="the synthetic world")
    demo: DemoConfig = Field(default_factory=DemoConfig, description="size and seed of the world, and its teacher")

    annotated: ClassVar[bool] = True

    @property
    def rebuilds_teacher(self) -> bool:
        """Return whether the workflow trains the demo's tiny CLIP."""
        return self.demo.rebuild_teacher

    def lists(self) -> tuple[str, str | None]:
        """Name the lists of the images to label and of the held-out ones."""
        return "train", "val"


ROOT = "folder or URL of the images: a path, or what fsspec opens (s3://, gs://, hf://, https://), without credentials"


class FolderDatasetConfig(ImagesConfig):
    """Any folder of images."""

    kind: Literal["folder"] = Field("folder", description="any folder of images")
    root: Location = Field(description=ROOT)
    test: TestSplitConfig = Field(default_factory=TestSplitConfig, description="the held-out images")

    @property
    def location(self) -> Path | str:
        """Return the folder or URL of the images."""
        return self.root


class ContainersConfig(ImagesConfig):
    """Images in files that hold many of them."""

    root: Location = Field(description=ROOT)
    test: ContainerTestSplitConfig = Field(default_factory=ContainerTestSplitConfig, description="the held-out images")

    @model_validator(mode="after")
    def patterns_hold_no_credentials(self) -> Self:
        """Refuse a URL as a pattern, and a query in one below a URL; the message does not repeat it."""
        for name, pattern in (("files", getattr(self, "files", None)), ("test.files", self.test.files)):
            if pattern is not None and ("://" in pattern or (is_url(self.root) and QUERY.search(pattern))):
                raise ValueError(
                    f"`{name}` is a URL or holds a query, which records would keep; write the URL in `root`, a pattern "
                    "of names here, and give fsspec the credentials (environment variables or ~/.config/fsspec)"
                )
        return self

    @property
    def location(self) -> Path | str:
        """Return the folder or URL of the files."""
        return self.root


FILES = "which files below `dataset.root` hold images: a pattern with *, **, ? and braces, e.g. train-{0000..0099}.tar"


class TarDatasetConfig(ContainersConfig):
    """Images in tars."""

    kind: Literal["tar"] = Field("tar", description="tars of images, as WebDataset's; members with labels are not read")
    files: str = Field("*.tar", min_length=1, description=FILES)


class ParquetDatasetConfig(ContainersConfig):
    """Images in Parquet files."""

    kind: Literal["parquet"] = Field(
        "parquet", description="Parquet files of images, as img2dataset's or Hugging Face's"
    )
    files: str = Field("*.parquet", min_length=1, description=FILES)
    image: str | None = Field(
        None, description="column of the images: bytes, or a struct of bytes and path; null for the only or usual one"
    )
    id: str | None = Field(
        None, description="column of the ids; null for `key`, the path next to the bytes, or file and row number"
    )


class LayoutConfig(ImagesConfig):
    """Images in the layout of a benchmark, with its lists and labels."""

    root: Path = Field(description="folder of the images")
    benchmark: Benchmark | None = Field(
        None, description="the benchmark that this is a copy of: sets the lists and checks classes and counts"
    )
    protocol: Protocol = Field(
        "paper",
        description="whose splits of the benchmark; voc2007: train / val (paper) or trainval / test (common); "
        "nuswide: lists of your own (paper) or the official ones (common)",
    )
    allow_incomplete: bool = Field(False, description="accept a copy of the benchmark that lacks images or classes")
    download: DownloadConfig = Field(
        default_factory=DownloadConfig, description="where to get the images if they are not there"
    )

    annotated: ClassVar[bool] = True

    @model_validator(mode="before")
    @classmethod
    def benchmark_sets_the_rest(cls, raw: Any) -> Any:  # noqa: ANN401
        """Fill in the lists that a benchmark's protocol reads, and how it treats images without labels."""
        if not isinstance(raw, Mapping):
            return raw
        named = (raw.get("benchmark"), raw.get("protocol", "paper"))
        known = BENCHMARK_SPECS.get(named) if all(isinstance(part, str) for part in named) else None  # type: ignore[arg-type]
        if known is None or known.kind not in cls.model_fields:
            return raw
        filled = dict(raw)
        if "unannotated" in cls.model_fields:
            filled.setdefault("unannotated", known.unannotated)
        lists = filled.get(known.kind, {})
        if isinstance(lists, Mapping) and known.train is not None:
            filled[known.kind] = {"train": known.train, "test": known.test, **lists}
        return filled

    @model_validator(mode="after")
    def benchmark_is_read_as_published(self) -> Self:
        """Refuse another layout or other lists than a benchmark and its protocol have."""
        if self.benchmark is None:
            return self
        known = self.known()
        if known is None:
            protocols = " and ".join(protocols_of(self.benchmark))
            raise ValueError(
                f"benchmark {self.benchmark} has no protocol {self.protocol}; set `protocol` to {protocols}"
            )
        if self.kind != known.kind:
            raise ValueError(f"benchmark {self.benchmark} has layout {known.kind}; set `kind: {known.kind}`")
        lists = self.lists()
        if known.train is not None and lists != (known.train, known.test):
            raise ValueError(
                f"protocol {self.protocol} of {self.benchmark} reads the lists {known.train} and {known.test}, "
                f"not {lists[0]} and {lists[1]}; leave `{self.kind}` out, or `benchmark`"
            )
        if known.train is None and lists == ("TrainImagelist", "TestImagelist"):
            raise ValueError(
                f"protocol {self.protocol} of {self.benchmark} reads lists that are no part of its release; name them "
                f"in `{self.kind}.train` and `{self.kind}.test`, or set `protocol: common`"
            )
        return self

    @property
    def location(self) -> Path:
        """Return the folder of the images."""
        return self.root

    @property
    def downloaded(self) -> bool:
        """Return whether the workflow fetches the images where they are not there; not a copy that lies elsewhere."""
        return bool(self.download.archives) and self.root.is_relative_to(self.download.folder or "")

    def known(self) -> BenchmarkSpec | None:
        """Return what is published of this benchmark and protocol; None where there is nothing."""
        return None if self.benchmark is None else BENCHMARK_SPECS.get((self.benchmark, self.protocol))

    def lists(self) -> tuple[str, str | None]:
        """Name the lists of the images to label and of the held-out ones."""
        raise NotImplementedError


class VocDatasetConfig(LayoutConfig):
    """Images and annotations in PASCAL VOC layout."""

    kind: Literal["voc"] = Field("voc", description="PASCAL VOC layout")
    difficult: Literal["negative", "ignore", "positive"] = Field(
        "negative", description="how an object marked only as difficult counts in the ground truth"
    )
    voc: VocLayoutConfig = Field(default_factory=VocLayoutConfig, description="which lists to read")

    def lists(self) -> tuple[str, str | None]:
        """Name the lists of the images to label and of the held-out ones."""
        return self.voc.train, self.voc.test


UNANNOTATED = (
    "whether images without any annotation are kept or dropped; drop reads whether an image has a label, as published "
    "protocols do, but not which"
)


class CocoDatasetConfig(LayoutConfig):
    """Images and annotations in COCO layout."""

    kind: Literal["coco"] = Field("coco", description="COCO layout (instances JSON)")
    unannotated: Unannotated = Field("keep", description=UNANNOTATED)
    coco: CocoLayoutConfig = Field(default_factory=CocoLayoutConfig, description="which lists to read")

    def lists(self) -> tuple[str, str | None]:
        """Name the lists of the images to label and of the held-out ones."""
        return self.coco.train, self.coco.test


class NusDatasetConfig(LayoutConfig):
    """Images and labels in the layout of NUS-WIDE."""

    kind: Literal["nus"] = Field("nus", description="NUS-WIDE layout (image lists, ground-truth text files)")
    unannotated: Unannotated = Field("keep", description=UNANNOTATED)
    nus: NusLayoutConfig = Field(default_factory=NusLayoutConfig, description="which lists to read")

    def lists(self) -> tuple[str, str | None]:
        """Name the lists of the images to label and of the held-out ones."""
        return self.nus.train, self.nus.test


class IdsDatasetConfig(DatasetConfig):
    """No images, only ids."""

    kind: Literal["ids"] = Field(
        "ids", description="no images, only the ids that a `scores` teacher brings (labels without a student)"
    )


BenchmarkCopy = VocDatasetConfig | CocoDatasetConfig | NusDatasetConfig
"""A dataset on disk in the layout of a benchmark."""

Listed = DemoDatasetConfig | BenchmarkCopy
"""A dataset whose images stand in lists."""

Dataset = Annotated[
    DemoDatasetConfig
    | FolderDatasetConfig
    | TarDatasetConfig
    | ParquetDatasetConfig
    | VocDatasetConfig
    | CocoDatasetConfig
    | NusDatasetConfig
    | IdsDatasetConfig,
    OneOf("kind"),
]
"""The dataset, by `dataset.kind`."""

parse_dataset = TypeAdapter[Dataset](Dataset).validate_python
"""Return the settings of a dataset from a mapping."""
