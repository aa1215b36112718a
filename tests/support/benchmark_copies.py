"""Small copies of the benchmarks as their releases unpack: official names and formats, images of 60 x 80 pixels."""

import json

import numpy as np
from PIL import Image

VOC_CLASSES = (
    "aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike person pottedplant sheep "
    "sofa train tvmonitor"
)

NUS_CONCEPTS = (
    "airport animal beach bear birds boats book bridge buildings cars castle cat cityscape clouds computer coral cow "
    "dancing dog earthquake elk fire fish flags flowers food fox frost garden glacier grass harbor horses house lake "
    "leaf map military moon mountain nighttime ocean person plane plants police protest railroad rainbow reflection "
    "road rocks running sand sign sky snow soccer sports statue street sun sunset surf swimmers tattoo temple tiger "
    "tower town toy train tree valley vehicle water waterfall wedding whales window zebra"
)


def draw_image(path, seed):
    """Write 80 x 60 pixels of smooth noise, as the kind of file that the suffix says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((80, 60), Image.Resampling.BICUBIC).save(path)


def make_voc(root, lists, classes):
    """Write JPEGImages, Annotations and ImageSets/Main. Image i shows class i, and class i + 1 as difficult alone."""
    for name, ids in lists.items():
        path = root / "ImageSets" / "Main" / f"{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{image}\n" for image in ids))
        for known in classes:
            path.with_name(f"{known}_{name}.txt").write_text("".join(f"{image} -1\n" for image in ids))
    for i, image in enumerate(dict.fromkeys(image for ids in lists.values() for image in ids)):
        draw_image(root / "JPEGImages" / f"{image}.jpg", i)
        shown = [(classes[i % len(classes)], 0), (classes[(i + 1) % len(classes)], 1)]
        objects = "".join(
            f"<object><name>{name}</name><pose>Left</pose><truncated>0</truncated><difficult>{difficult}</difficult>"
            "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>40</xmax><ymax>40</ymax></bndbox></object>"
            for name, difficult in shown
        )
        path = root / "Annotations" / f"{image}.xml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            f"<annotation><folder>{root.name}</folder><filename>{image}.jpg</filename>"
            f"<size><width>80</width><height>60</height><depth>3</depth></size>{objects}</annotation>"
        )


def make_coco(root, classes, train=5, test=4):
    """Write annotations/ and the folders of images. Image i shows class i, and the last one of each list nothing."""
    root.joinpath("annotations").mkdir(parents=True)
    for name, count, first in (("train2014", train, 100), ("val2014", test, 200)):
        numbers = range(first, first + count)
        files = {number: f"COCO_{name}_{number:012d}.jpg" for number in numbers}
        for number, file in files.items():
            draw_image(root / name / file, number)
        shapes = {"area": 4.5, "bbox": [1, 1, 3.5, 3], "segmentation": [[1, 1, 4, 1, 4, 4]]}
        objects = [
            {"id": 10 * n, "image_id": n, "category_id": 10 * (n % 100 % len(classes)) + 1, "iscrowd": n % 2, **shapes}
            for n in list(numbers)[:-1]
        ]
        instances = {
            "info": {"year": 2014},
            "licenses": [],
            "images": [{"id": n, "file_name": file, "width": 80, "height": 60} for n, file in files.items()],
            "annotations": objects,
            "categories": [{"id": 10 * i + 1, "name": c, "supercategory": "x"} for i, c in enumerate(classes)],
        }
        root.joinpath("annotations", f"instances_{name}.json").write_text(json.dumps(instances))


def make_nus(root, concepts, train=5, test=4):
    """Write the release's lists, labels, concepts and images. Image i shows concept i, the last of each list none."""
    named = {}
    for end, count, first in (("Train", train, 0), ("Test", test, 50)):
        named[end] = [(f"actor\\{i:04d}_{2124494179 + i}.jpg", i - first) for i in range(first, first + count)]
        named[end][-1] = (named[end][-1][0], None)
    lists = {"TrainImagelist": named["Train"], "TestImagelist": named["Test"]}
    lists["Imagelist"] = [*named["Test"], *named["Train"]]
    for folder in ("ImageList", "ConceptsList", "Groundtruth/AllLabels", "Groundtruth/TrainTestLabels"):
        root.joinpath(folder).mkdir(parents=True)
    root.joinpath("ConceptsList", "Concepts81.txt").write_text("".join(f"{name}\n" for name in concepts))
    for name, rows in lists.items():
        root.joinpath("ImageList", f"{name}.txt").write_text("".join(f"{line} \r\n" for line, _ in rows), newline="")
    for column, concept in enumerate(concepts):
        for rows, path in (
            (lists["Imagelist"], f"AllLabels/Labels_{concept}.txt"),
            (named["Train"], f"TrainTestLabels/Labels_{concept}_Train.txt"),
            (named["Test"], f"TrainTestLabels/Labels_{concept}_Test.txt"),
        ):
            root.joinpath("Groundtruth", path).write_text("".join(f"{int(shown == column)}\n" for _, shown in rows))
    for line, _ in lists["Imagelist"]:
        draw_image(root / "Flickr" / line.replace("\\", "/"), sum(line.encode()))
