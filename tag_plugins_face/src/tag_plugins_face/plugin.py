"""The plugin ``face``: what it registers. Nothing heavy is imported here."""

from __future__ import annotations

from tag_core import Command, Component, RecipeFile, hookimpl

PACKAGE = "tag_plugins_face"
RETINAFACE = "RetinaFace: Single-stage Dense Face Localisation in the Wild, CVPR 2020 (arXiv 1905.00641)"
MOBILENET = "MobileNets: Efficient Convolutional Neural Networks for Mobile Vision Applications (arXiv 1704.04861)"
RESNET = "Deep Residual Learning for Image Recognition, CVPR 2016 (arXiv 1512.03385)"
WIDER = "WIDER FACE: A Face Detection Benchmark, CVPR 2016 (arXiv 1511.06523)"


@hookimpl
def tag_datasets() -> list[Component]:
    return [
        Component(
            "wider", f"{PACKAGE}.datasets.wider:WiderFace", "Pictures and videos; faces by a label.txt", paper=WIDER
        )
    ]


@hookimpl
def tag_transforms() -> list[Component]:
    at = f"{PACKAGE}.transforms"
    return [
        Component("resize", f"{at}.resize:Resize", "To a short side, a longest side at most"),
        Component("square-crop", f"{at}.square_crop:SquareCrop", "A square with a whole face in it", paper=RETINAFACE),
        Component("photometric", f"{at}.photometric:Photometric", "Brightness, contrast, saturation, hue"),
        Component("mirror", f"{at}.mirror:Mirror", "Mirror at random, left and right landmarks swapped"),
        Component("square-resize", f"{at}.square_resize:SquareResize", "Pad to a square, resize it"),
    ]


@hookimpl
def tag_backbones() -> list[Component]:
    at = f"{PACKAGE}.models"
    return [
        Component("mobilenet0.25", f"{at}.mobilenet:MobileNet", "MobileNet v1, a quarter wide", paper=MOBILENET),
        Component("resnet50", f"{at}.resnet:ResNet50", "torchvision's ResNet-50 as a pyramid", paper=RESNET),
    ]


@hookimpl
def tag_tasks() -> list[Component]:
    return [
        Component("detection", f"{PACKAGE}.tasks.detection:Detection", "Faces, five landmarks each", paper=RETINAFACE)
    ]


@hookimpl
def tag_metrics() -> list[Component]:
    return [
        Component("wider_ap", f"{PACKAGE}.metrics.wider_ap:WiderAP", "AP, of WIDER FACE by difficulty", paper=WIDER)
    ]


@hookimpl
def tag_sinks() -> list[Component]:
    return [
        Component("wider-text", f"{PACKAGE}.wider_text:WiderText", "A text file per picture, as WIDER FACE wants it")
    ]


@hookimpl
def tag_recipes() -> list[RecipeFile]:
    at = f"{PACKAGE}:recipes"
    return [
        RecipeFile("retinaface-mobilenet0.25", f"{at}/retinaface-mobilenet0.25.toml", "RetinaFace, small and fast"),
        RecipeFile("retinaface-resnet50", f"{at}/retinaface-resnet50.toml", "RetinaFace, large"),
    ]


@hookimpl
def tag_commands() -> list[Command]:
    return [Command("face", f"{PACKAGE}.cli:face", "Score result files on WIDER FACE")]
