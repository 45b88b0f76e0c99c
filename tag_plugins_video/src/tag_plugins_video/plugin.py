"""The plugin ``video``: what it registers. Nothing heavy is imported here."""

from __future__ import annotations

from tag_core import Command, Component, RecipeFile, hookimpl

PACKAGE = "tag_plugins_video"
TSN = "Temporal Segment Networks, ECCV 2016 (arXiv 1608.00859)"
S3D = "Rethinking Spatiotemporal Feature Learning, ECCV 2018 (arXiv 1712.04851)"


@hookimpl
def tag_datasets() -> list[Component]:
    return [
        Component("folder", f"{PACKAGE}.datasets.folder:VideoFolder", "Videos in one folder per class"),
        Component("list", f"{PACKAGE}.datasets.list_file:VideoList", "Videos in a 'path label' file"),
        Component("table", f"{PACKAGE}.datasets.table:VideoTable", "Videos in a CSV or JSON Lines file"),
        Component("frames", f"{PACKAGE}.datasets.frames:FrameFolders", "Folders of pictures, one a frame"),
    ]


@hookimpl
def tag_transforms() -> list[Component]:
    at = f"{PACKAGE}.transforms"
    return [
        Component("resize", f"{at}.resize:Resize", "To a short side or an exact size"),
        Component("center-crop", f"{at}.crop:CenterCrop", "The middle of the picture"),
        Component("random-crop", f"{at}.crop:RandomCrop", "A place at random"),
        Component("random-resized-crop", f"{at}.crop:RandomResizedCrop", "A random part, resized"),
        Component("multi-scale-crop", f"{at}.multi_scale_crop:MultiScaleCrop", "Corner crops", paper=TSN),
        Component("flip", f"{at}.colour:Flip", "Mirror at random"),
        Component("color-jitter", f"{at}.colour:ColorJitter", "Brightness, contrast, saturation, hue"),
        Component("normalize", f"{at}.colour:Normalize", "To float, minus mean, over standard deviation"),
        Component("three-crop", f"{at}.views:ThreeCrop", "Three squares along the long side, as views"),
        Component("ten-crop", f"{at}.views:TenCrop", "Corners and centre, mirrored too, as views"),
    ]


@hookimpl
def tag_backbones() -> list[Component]:
    at = f"{PACKAGE}.models"
    return [
        Component("tsn", f"{at}.tsn:TSN", "A 2D encoder on every frame, then a consensus", paper=TSN),
        Component("s3d", f"{at}.s3d:S3D", "Separable 3D convolutions, as in torchvision", paper=S3D),
        Component("c3d-tiny", f"{at}.c3d_tiny:C3DTiny", "Three 3D convolutions for small clips of motion"),
    ]


@hookimpl
def tag_tasks() -> list[Component]:
    target = f"{PACKAGE}.tasks.classification:Classification"
    return [Component("classification", target, "One label or several for a clip")]


@hookimpl
def tag_recipes() -> list[RecipeFile]:
    at = f"{PACKAGE}:recipes"
    return [
        RecipeFile("tsn", f"{at}/tsn.toml", "Fine-tune TSN with a ResNet-50 on your own clips"),
        RecipeFile("s3d", f"{at}/s3d.toml", "S3D as published on Kinetics-400"),
        RecipeFile("motion", f"{at}/motion.toml", "Which way does the digit move? A small 3D network"),
        RecipeFile("motion-frame", f"{at}/motion-frame.toml", "The same from a single frame: chance level"),
    ]


@hookimpl
def tag_commands() -> list[Command]:
    return [Command("motion-data", f"{PACKAGE}.cli:motion_data", "Make the moving-digits data set")]
