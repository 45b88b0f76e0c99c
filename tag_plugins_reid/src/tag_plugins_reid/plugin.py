"""The plugin ``reid``: what it registers. Nothing heavy is imported here."""

from __future__ import annotations

from tag_core import Command, Component, RecipeFile, hookimpl

PACKAGE = "tag_plugins_reid"
TRIPLET = "In Defense of the Triplet Loss for Person Re-Identification (arXiv 1703.07737)"
AM_SOFTMAX = "Additive Margin Softmax for Face Verification (arXiv 1801.05599)"
COSFACE = "CosFace: Large Margin Cosine Loss for Deep Face Recognition, CVPR 2018 (arXiv 1801.09414)"
ARCFACE = "ArcFace: Additive Angular Margin Loss for Deep Face Recognition, CVPR 2019 (arXiv 1801.07698)"
CIRCLE = "Circle Loss: A Unified Perspective of Pair Similarity Optimization, CVPR 2020 (arXiv 2002.10857)"
CONTRASTIVE = "Dimensionality Reduction by Learning an Invariant Mapping, CVPR 2006"
XBM = "Cross-Batch Memory for Embedding Learning, CVPR 2020 (arXiv 1912.06798)"

RESNET = "Deep Residual Learning for Image Recognition, CVPR 2016 (arXiv 1512.03385)"
PCB = "Beyond Part Models: Person Retrieval with Refined Part Pooling, ECCV 2018 (arXiv 1711.09349)"
MARKET = "Scalable Person Re-identification: A Benchmark, ICCV 2015"
ERASING = "Random Erasing Data Augmentation, AAAI 2020 (arXiv 1708.04896)"
MOMENTS = "Moment Normalization of Handprinted Characters, IBM Journal of Research and Development, 1970"
CUHK03 = "DeepReID: Deep Filter Pairing Neural Network for Person Re-Identification, CVPR 2014"


@hookimpl
def tag_datasets() -> list[Component]:
    at = f"{PACKAGE}.datasets"
    return [
        Component("folder", f"{at}.folder:IdentityFolders", "Pictures in one folder per identity"),
        Component("class-mapping", f"{at}.class_mapping:ClassMapping", "Pictures by identity in a JSON file"),
        Component("market", f"{at}.market:MarketPictures", "Names as in Market-1501, MSMT17, VeRi", paper=MARKET),
        Component("cuhk03", f"{at}.cuhk03:CUHK03", "CUHK03 by its split files", paper=CUHK03),
        Component("list", f"{at}.list_file:PictureList", "Pictures in a list or table, with identity and camera"),
        Component("coco", f"{at}.coco:COCOBoxes", "Boxes of a COCO file, cut out"),
    ]


@hookimpl
def tag_transforms() -> list[Component]:
    at = f"{PACKAGE}.transforms"
    return [
        Component("resize", f"{at}.resize:Resize", "To an exact size or a short side"),
        Component("aspect-resize", f"{at}.aspect_resize:AspectResize", "To the nearest of twelve shapes"),
        Component("pad-crop", f"{at}.pad_crop:PadCrop", "Shift by padding and cropping"),
        Component("flip", f"{at}.flip:Flip", "Mirror at random"),
        Component("random-erasing", f"{at}.random_erasing:RandomErasing", "Paint over a rectangle", paper=ERASING),
        Component("color-jitter", f"{at}.color_jitter:ColorJitter", "Brightness, contrast, saturation, hue"),
        Component("affine", f"{at}.affine:Affine", "Rotate, shift, scale, shear"),
        Component("moments", f"{at}.moments:Moments", "A drawing to the middle and to one size", paper=MOMENTS),
        Component("taobao-augment", f"{at}.taobao_augment:TaobaoAugment", "All that the Taobao Live solution does"),
    ]


@hookimpl
def tag_samplers() -> list[Component]:
    at = f"{PACKAGE}.samplers"
    return [
        Component("identities", f"{at}.identities:Identities", "P identities, K pictures of each", paper=TRIPLET),
        Component("aspect-groups", f"{at}.aspect_groups:AspectGroups", "Pictures of about one shape in a batch"),
    ]


@hookimpl
def tag_losses() -> list[Component]:
    at = f"{PACKAGE}.losses"
    return [
        Component("triplet", f"{at}.triplet:Triplet", "Batch-hard or weighted triplets", paper=TRIPLET),
        Component("contrastive", f"{at}.contrastive:Contrastive", "Margins on cosines of pairs", paper=CONTRASTIVE),
        Component("circle", f"{at}.circle:Circle", "Circle loss over pairs", paper=CIRCLE),
        Component("circle-softmax", f"{at}.circle_softmax:CircleSoftmax", "Circle loss over classes", paper=CIRCLE),
        Component("am-softmax", f"{at}.am_softmax:AMSoftmax", "Softmax, additive cosine margin", paper=AM_SOFTMAX),
        Component("cosface", f"{at}.cosface:CosFace", "Softmax, additive cosine margin", paper=COSFACE),
        Component("arcface", f"{at}.arcface:ArcFace", "Softmax, additive angular margin", paper=ARCFACE),
        Component("xbm", f"{at}.xbm:XBM", "Cross-batch memory around a pair loss", paper=XBM),
        Component("xbm-softmax", f"{at}.xbm_softmax:XBMSoftmax", "Cross-batch memory around a margin softmax"),
        Component("sum", f"{at}.sum:Sum", "Several losses, weighted"),
    ]


@hookimpl
def tag_backbones() -> list[Component]:
    at = f"{PACKAGE}.models"
    return [
        Component("resnet", f"{at}.resnet:ResNet", "ResNet-18 to 152, last stride 1 or 2", paper=RESNET),
        Component("timm", f"{at}.timm:Timm", "Any image model of timm, such as efficientnet_b0"),
        Component("small", f"{at}.small:SmallNet", "Plain convolutions, for training from scratch"),
    ]


@hookimpl
def tag_tasks() -> list[Component]:
    at = f"{PACKAGE}.tasks"
    return [
        Component("embedding", f"{at}.embedding:Embedding", "One embedding of the picture; any losses"),
        Component("pcb", f"{at}.pcb:PCB", "Horizontal stripes, each with a classifier", paper=PCB),
    ]


@hookimpl
def tag_metrics() -> list[Component]:
    at = f"{PACKAGE}.metrics"
    return [Component("market", f"{at}.market:Market", "Rank-k, mAP and mINP of a retrieval", paper=MARKET)]


@hookimpl
def tag_recipes() -> list[RecipeFile]:
    at = f"{PACKAGE}:recipes"
    return [
        RecipeFile("softmax", f"{at}/softmax.toml", "The plain baseline: identities are classes"),
        RecipeFile("triplet", f"{at}/triplet.toml", "Batch-hard triplets alone, as in TriNet"),
        RecipeFile("bot", f"{at}/bot.toml", "Bag of tricks: BNNeck, triplets, label smoothing"),
        RecipeFile("pcb", f"{at}/pcb.toml", "PCB: six stripes, each with a classifier"),
        RecipeFile("arcface", f"{at}/arcface.toml", "Products by ArcFace, with GeM and BNNeck"),
        RecipeFile("arcface-xbm", f"{at}/arcface-xbm.toml", "The same with a memory of earlier batches"),
        RecipeFile("taobao", f"{at}/taobao.toml", "Clothes in live video: EfficientNet-B5, ArcFace"),
        RecipeFile("omniglot", f"{at}/omniglot.toml", "Unseen handwritten characters, from scratch"),
        RecipeFile("small", f"{at}/small.toml", "Products in colour, from scratch on a processor"),
    ]


@hookimpl
def tag_commands() -> list[Command]:
    return [Command("reid", f"{PACKAGE}.cli:reid", "Import a params.json of pytorch-reid")]
