"""The plugin ``video``: what it registers. Nothing heavy is imported here."""

from __future__ import annotations

from tag_core import Command, Component, RecipeFile, hookimpl

PACKAGE = "tag_plugins_video"
TSN = "Temporal Segment Networks, ECCV 2016 (arXiv 1608.00859)"
P3D = "Pseudo-3D Residual Networks, ICCV 2017 (arXiv 1711.10305)"
C3D = "Learning Spatiotemporal Features with 3D Convolutional Networks, ICCV 2015 (arXiv 1412.0767)"
STNET = "StNet, AAAI 2019 (arXiv 1811.01549)"
CLUSTER = "Attention Clusters: Purely Attention Based Local Feature Integration, CVPR 2018 (arXiv 1711.09550)"
NEXTVLAD = "NeXtVLAD, ECCV 2018 workshops (arXiv 1811.05014)"
YOUTUBE8M = "YouTube-8M: A Large-Scale Video Classification Benchmark (arXiv 1609.08675)"
FUSION = "Two-Stream Convolutional Networks for Action Recognition in Videos, NIPS 2014 (arXiv 1406.2199)"
MOCO = "Momentum Contrast for Unsupervised Visual Representation Learning, CVPR 2020 (arXiv 1911.05722)"
SIMCLR = "A Simple Framework for Contrastive Learning of Visual Representations, ICML 2020 (arXiv 2002.05709)"
BYOL = "Bootstrap Your Own Latent, NeurIPS 2020 (arXiv 2006.07733)"
VIDEOMAE = "VideoMAE: Masked Autoencoders are Data-Efficient Learners, NeurIPS 2022 (arXiv 2203.12602)"
PROBE = "Masked Autoencoders Are Scalable Vision Learners, CVPR 2022 (arXiv 2111.06377), appendix A"
KNN = "Emerging Properties in Self-Supervised Vision Transformers, ICCV 2021 (arXiv 2104.14294)"
S3D = "Rethinking Spatiotemporal Feature Learning, ECCV 2018 (arXiv 1712.04851)"


@hookimpl
def tag_datasets() -> list[Component]:
    return [
        Component("folder", f"{PACKAGE}.datasets.folder:VideoFolder", "Videos in one folder per class"),
        Component("list", f"{PACKAGE}.datasets.list_file:VideoList", "Videos in a 'path label' file"),
        Component("table", f"{PACKAGE}.datasets.table:VideoTable", "Videos in a CSV or JSON Lines file"),
        Component("frames", f"{PACKAGE}.datasets.frames:FrameFolders", "Folders of pictures, one a frame"),
        Component("flow", f"{PACKAGE}.datasets.flow:FlowFolder", "Optical flow made by 'tag-run flow'"),
        Component("two-stream", f"{PACKAGE}.datasets.two_stream:TwoStream", "Videos together with their optical flow"),
        Component("kinetics-pickle", f"{PACKAGE}.datasets.kinetics_pickle:KineticsPickle", "Pickles of JPEG frames"),
        Component("features", f"{PACKAGE}.datasets.features:VideoFeatures", "Features made by 'tag-run features'"),
        Component("youtube8m", f"{PACKAGE}.datasets.youtube8m:YouTube8M", "YouTube-8M features", paper=YOUTUBE8M),
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
        Component("per-view", f"{at}.per_view:PerView", "Random choices of their own for every view"),
        Component("ten-crop", f"{at}.views:TenCrop", "Corners and centre, mirrored too, as views"),
    ]


@hookimpl
def tag_backbones() -> list[Component]:
    at = f"{PACKAGE}.models"
    return [
        Component("tsn", f"{at}.tsn:TSN", "A 2D encoder on every frame, then a consensus", paper=TSN),
        Component("s3d", f"{at}.s3d:S3D", "Separable 3D convolutions, as in torchvision", paper=S3D),
        Component("p3d", f"{at}.p3d:P3D", "Pseudo-3D residual network, 63 to 199 layers", paper=P3D),
        Component("c3d", f"{at}.c3d:C3D", "Plain 3x3x3 convolutions, Sports-1M or UCF101 net", paper=C3D),
        Component("c3d-tiny", f"{at}.c3d_tiny:C3DTiny", "Three 3D convolutions for small clips of motion"),
        Component("vit", f"{at}.vit:VideoViT", "A plain transformer on tubelets", paper=VIDEOMAE),
        Component("stnet", f"{at}.stnet:StNet", "A 2D ResNet on super-images, and time", paper=STNET),
        Component(
            "attention-cluster",
            f"{at}.attention_cluster:AttentionCluster",
            "Frame features weighted many ways",
            paper=CLUSTER,
        ),
        Component("attention-lstm", f"{at}.attention_lstm:AttentionLSTM", "Two-way LSTMs on frame features"),
        Component("nextvlad", f"{at}.nextvlad:NeXtVLAD", "Frame features against clusters", paper=NEXTVLAD),
    ]


@hookimpl
def tag_tasks() -> list[Component]:
    at = f"{PACKAGE}.tasks"
    return [
        Component("classification", f"{at}.classification:Classification", "One label or several for a clip"),
        Component("tagging", f"{at}.tagging:Tagging", "Labels for a sequence of frame features"),
        Component("moco", f"{at}.moco:MoCo", "Momentum contrast, without labels", paper=MOCO),
        Component("simclr", f"{at}.simclr:SimCLR", "Contrast within a batch, without labels", paper=SIMCLR),
        Component("byol", f"{at}.byol:BYOL", "One clip's features from another's, without labels", paper=BYOL),
        Component("mae", f"{at}.mae:MAE", "Fill in masked tubes, without labels", paper=VIDEOMAE),
        Component("linear-probe", f"{at}.linear_probe:LinearProbe", "Linear classifier on fixed features", paper=PROBE),
        Component("knn", f"{at}.knn:KNN", "The vote of the nearest training clips", paper=KNN),
        Component("two-stream", f"{at}.two_stream:TwoStream", "Scores of pictures and of flow, averaged", paper=FUSION),
    ]


@hookimpl
def tag_metrics() -> list[Component]:
    at = f"{PACKAGE}.metrics"
    return [
        Component("hit-at-1", f"{at}.hit_at_one:HitAtOne", "Share of videos whose best class is right"),
        Component("perr", f"{at}.perr:PERR", "Precision at equal recall rate"),
        Component("gap", f"{at}.gap:GAP", "Global average precision of each video's k best classes"),
        Component("class-ap", f"{at}.class_ap:ClassAP", "Average precision of each class"),
    ]


@hookimpl
def tag_sinks() -> list[Component]:
    return [Component("paddle", f"{PACKAGE}.sinks.paddle:PaddleResult", "The result file of Paddle's video library")]


@hookimpl
def tag_recipes() -> list[RecipeFile]:
    at = f"{PACKAGE}:recipes"
    return [
        RecipeFile("tsn", f"{at}/tsn.toml", "Fine-tune TSN with a ResNet-50 on your own clips"),
        RecipeFile("tsn-paddle", f"{at}/tsn-paddle.toml", "TSN as in Paddle's video library, 3 segments"),
        RecipeFile("s3d", f"{at}/s3d.toml", "S3D as published on Kinetics-400"),
        RecipeFile("p3d", f"{at}/p3d.toml", "P3D, from scratch or from published weights"),
        RecipeFile("p3d-flow", f"{at}/p3d-flow.toml", "P3D on optical flow of 'tag-run flow'"),
        RecipeFile("two-stream", f"{at}/two-stream.toml", "P3D on pictures and on optical flow, fused"),
        RecipeFile("c3d", f"{at}/c3d.toml", "C3D fine-tuned from Sports-1M weights"),
        RecipeFile("c3d-ucf101", f"{at}/c3d-ucf101.toml", "The small C3D for training from scratch"),
        RecipeFile("stnet", f"{at}/stnet.toml", "StNet as in Paddle's video library"),
        RecipeFile("attention-cluster", f"{at}/attention-cluster.toml", "AttentionCluster as trained on YouTube-8M"),
        RecipeFile("attention-lstm", f"{at}/attention-lstm.toml", "AttentionLSTM as trained on YouTube-8M"),
        RecipeFile("nextvlad", f"{at}/nextvlad.toml", "NeXtVLAD as trained on YouTube-8M"),
        RecipeFile("moco", f"{at}/moco.toml", "Learn a backbone without labels: momentum contrast"),
        RecipeFile("simclr", f"{at}/simclr.toml", "Learn a backbone without labels: contrast in a batch"),
        RecipeFile("byol", f"{at}/byol.toml", "Learn a backbone without labels or negatives"),
        RecipeFile("mae", f"{at}/mae.toml", "Learn a video transformer without labels"),
        RecipeFile("linear-probe", f"{at}/linear-probe.toml", "A linear classifier on a frozen backbone"),
        RecipeFile("knn", f"{at}/knn.toml", "The vote of the nearest clips on a frozen backbone"),
        RecipeFile("motion", f"{at}/motion.toml", "Which way does the digit move? A small 3D network"),
        RecipeFile("motion-features", f"{at}/motion-features.toml", "The same from features of short clips"),
        RecipeFile("motion-frame", f"{at}/motion-frame.toml", "The same from a single frame: chance level"),
    ]


@hookimpl
def tag_commands() -> list[Command]:
    return [
        Command("motion-data", f"{PACKAGE}.cli:motion_data", "Make the moving-digits data set"),
        Command("flow", f"{PACKAGE}.cli_flow:flow", "Make optical flow of videos, in parallel"),
        Command("features", f"{PACKAGE}.cli_features:features", "Extract features of videos for sequence models"),
    ]
