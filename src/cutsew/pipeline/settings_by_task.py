"""How the reference page of settings is arranged: sections by what a user wants to do, each with an example."""

from typing import NamedTuple


class Task(NamedTuple):
    """Sections of the config file that serve one purpose.

    Attributes:
        title: heading.
        text: what to know before the tables; Markdown.
        example: settings, as YAML.
        sections: names of the sections.

    """

    title: str
    text: str
    example: str
    sections: tuple[str, ...]


TASKS = (
    Task(
        "Name images and classes",
        "What to label, and what to look for. How files are found and which are read: [Input files](input-files.md). "
        "How to word prompts: [Choose classes and prompts](../how-to/prompts.md).",
        """
        classes: [cat, dog, person]
        dataset: {kind: folder, name: pets, root: photos, test: {fraction: 0.2}}
        prompts: {names: {person: [person, child]}, background: [sky, grass, wall]}
        """,
        ("dataset", "prompts"),
    ),
    Task(
        "Choose the models",
        "The teacher scores images; the student is trained. "
        "[Choose a teacher and a student](../how-to/choose-a-teacher.md) compares them.",
        """
        teacher: {kind: open_clip, open_clip: {model: ViT-L-14-336, pretrained: openai, image_size: null}}
        student: {kind: timm, timm: {model: tf_efficientnet_lite0, weights: package, image_size: 288}}
        """,
        ("teacher", "student"),
    ),
    Task(
        "Cut: score and fuse regions",
        "How regions are placed, scored and combined into labels. [The method](../explanation/method.md#cut) explains "
        "it; [Compare variants](../how-to/variants.md) has advice.",
        """
        cut: {layout: tiles}
        fuse: {rule: max, alpha: 0.1}
        """,
        ("cut", "score", "fuse"),
    ),
    Task(
        "Correct and rescale labels",
        "What is done to the fused labels before training. Manual corrections: [Corrections](corrections.md).",
        """
        correct: {rule: identity}
        targets: {labels_per_image: auto}
        labels: {overrides: audit.csv}
        """,
        ("correct", "targets", "labels"),
    ),
    Task(
        "Sew and train",
        "Which images are pasted, and how the head is trained. [The method](../explanation/method.md#sew)",
        """
        select: {top_k: auto}
        sew: {q: 0.5, ratio: side, max_overlays: 1}
        train: {head: linear, lr: auto}
        """,
        ("select", "sew", "train"),
    ),
    Task(
        "Predict and decide",
        "More views of test images, and when a probability becomes a label: "
        "[Decision thresholds](../explanation/thresholds.md).",
        """
        predict: {tiles: true}
        thresholds: {rule: count}
        """,
        ("predict", "thresholds"),
    ),
    Task(
        "Measure and explain",
        "Metrics, baselines and class activation maps. None of these changes a label.",
        """
        evaluate: {threshold: 0.5}
        references: {kinds: [zero_shot]}
        explain: {num_maps: 40}
        """,
        ("evaluate", "references", "explain"),
    ),
    Task(
        "Use the machine",
        "Where and how fast the work is done. None of these settings changes a result or reruns a stage. Cores, memory "
        "and cluster options belong into a profile: [On a Slurm cluster](../how-to/cluster.md).",
        """
        compute: {device: auto, cache_features: 50}
        """,
        ("compute",),
    ),
)
