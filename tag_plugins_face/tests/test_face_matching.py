"""Matching and loss, against plain loops over faces and anchors."""

import math

import pytest
import torch

from tag_plugins_face.anchors import cells, make_anchors
from tag_plugins_face.boxes import corners
from tag_plugins_face.faces import Faces
from tag_plugins_face.matching import MultiBoxLoss, match

SIZES, STRIDES, VARIANCES = ((16, 32), (64, 128), (256, 512)), (8, 16, 32), (0.1, 0.2)


def iou(a, b):
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def plain_match(faces, priors, least, drop):
    """Per prior, centre and size, the face's number or -1."""
    edges = [(x - w / 2, y - h / 2, x + w / 2, y + h / 2) for x, y, w, h in priors]
    overlaps = [[iou(face, edge) for edge in edges] for face in faces]
    found = []
    for prior in range(len(priors)):
        best = max(range(len(faces)), key=lambda face: overlaps[face][prior], default=-1)
        found.append(best if faces and overlaps[best][prior] >= least else -1)
    for face, row in enumerate(overlaps):
        if max(row) >= drop:
            found[row.index(max(row))] = face
    return found


def smooth_l1(value):
    return 0.5 * value**2 if abs(value) < 1 else abs(value) - 0.5


def plain_loss(logits, boxes, landmarks, priors, faces, negatives):
    """Class, box and landmark loss of tensors, by loops over numbers that keep their gradients."""
    class_loss = box_loss = landmark_loss = 0.0
    positives = marked = 0
    for n, each in enumerate(faces):
        found = plain_match(each.boxes.tolist(), priors.tolist(), 0.35, 0.2)
        entropies = []
        for a, face in enumerate(found):
            background, foreground = logits[n, a]
            entropies.append(torch.logaddexp(background, foreground) - (foreground if face >= 0 else background))
            if face < 0:
                continue
            positives += 1
            x, y, w, h = priors[a].tolist()
            x1, y1, x2, y2 = each.boxes[face].tolist()
            wanted = [((x1 + x2) / 2 - x) / (0.1 * w), ((y1 + y2) / 2 - y) / (0.1 * h)]
            wanted += [math.log((x2 - x1) / w) / 0.2, math.log((y2 - y1) / h) / 0.2]
            box_loss += sum(smooth_l1(boxes[n, a, k] - wanted[k]) for k in range(4))
            points = each.landmarks[face].tolist()
            if not math.isnan(points[0][0]):
                marked += 1
                for k, (px, py) in enumerate(points):
                    landmark_loss += smooth_l1(landmarks[n, a, k, 0] - (px - x) / (0.1 * w))
                    landmark_loss += smooth_l1(landmarks[n, a, k, 1] - (py - y) / (0.1 * h))
        chosen = [a for a, face in enumerate(found) if face >= 0]
        hard = sorted((a for a, face in enumerate(found) if face < 0), key=lambda a: -entropies[a].item())
        class_loss += sum(entropies[a] for a in chosen + hard[: negatives * len(chosen)])
    return class_loss / max(positives, 1), box_loss / max(positives, 1), landmark_loss / max(marked, 1)


def make_faces(count, side, seed):
    """Faces of 4 pixels and more in a picture of this side, every second without landmarks."""
    generator = torch.Generator().manual_seed(seed)
    sizes = 4 * (side / 6) ** torch.rand(count, 1, generator=generator) * torch.tensor([[1.0, 1.3]])
    corner = torch.rand(count, 2, generator=generator) * (side - sizes)
    landmarks = corner[:, None] + torch.rand(count, 5, 2, generator=generator) * sizes[:, None]
    landmarks[1::2] = math.nan
    return Faces(torch.cat([corner, corner + sizes], 1), landmarks)


def anchors_of(side):
    return make_anchors(cells(side, side, STRIDES), SIZES, STRIDES)


@pytest.mark.parametrize("count", [0, 1, 3, 40])
def test_anchors_match_the_faces_that_plain_loops_give_them(count):
    anchors, faces = anchors_of(96), make_faces(count, 96, count)
    found = match(faces.boxes, anchors, 0.35, 0.2).tolist()
    assert found == plain_match(faces.boxes.tolist(), anchors.tolist(), 0.35, 0.2)
    assert count == 0 or max(found) >= 0


def test_a_face_too_small_for_every_anchor_is_left_out_and_a_poor_one_keeps_its_best():
    anchors = torch.tensor([[8.0, 8, 16, 16], [40, 40, 16, 16]])
    small, poor = [6.0, 6, 10, 10], [36.0, 36, 44, 44]  # IoU 1/16 and 1/4
    assert match(torch.tensor([small, poor]), anchors, 0.35, 0.2).tolist() == [-1, 1]


def test_of_two_faces_with_one_best_anchor_the_last_gets_it():
    anchors = torch.tensor([[8.0, 8, 16, 16], [400, 400, 16, 16]])
    exact, near = [0.0, 0, 16, 16], [2.0, 2, 16, 16]
    for faces in ([exact, near], [near, exact]):
        assert match(torch.tensor(faces), anchors, 0.35, 0.2).tolist() == [1, -1]


@pytest.mark.parametrize("counts", [(3, 1), (0, 5), (12, 0, 2)])
def test_losses_and_gradients_are_those_of_plain_loops(counts):
    torch.manual_seed(0)
    anchors, faces = anchors_of(64).double(), [make_faces(count, 64, n) for n, count in enumerate(counts)]
    faces = [Faces(each.boxes.double(), each.landmarks.double()) for each in faces]
    shapes = ((2,), (4,), (5, 2))
    given = [torch.randn(len(counts), len(anchors), *s, dtype=torch.float64, requires_grad=True) for s in shapes]
    expected = plain_loss(*given, anchors, faces, 7)
    found = MultiBoxLoss(VARIANCES, 0.35, 0.2, 7)(*given, anchors, faces)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)
    gradients = torch.autograd.grad(2 * expected[1] + expected[0] + expected[2], given)
    for one, other in zip(torch.autograd.grad(2 * found[1] + found[0] + found[2], given), gradients, strict=True):
        torch.testing.assert_close(one, other)


def test_a_batch_without_any_face_has_no_loss_and_no_gradient():
    anchors, none = anchors_of(64), make_faces(0, 64, 0)
    given = [torch.randn(2, len(anchors), *shape, requires_grad=True) for shape in ((2,), (4,), (5, 2))]
    losses = MultiBoxLoss(VARIANCES, 0.35, 0.2, 7)(*given, anchors, [none, none])
    assert [loss.item() for loss in losses] == [0.0, 0.0, 0.0]
    assert all(not gradient.any() for gradient in torch.autograd.grad(sum(losses), given))


def test_where_background_runs_short_every_anchor_counts():
    anchors = torch.tensor([[8.0, 8, 16, 16], [24, 8, 16, 16]])
    faces = Faces(corners(anchors[:1]), torch.zeros(1, 5, 2))
    logits = torch.tensor([[[0.0, 1.0], [0.0, 0.0]]])
    class_loss, *_ = MultiBoxLoss(VARIANCES, 0.35, 0.2, 7)(
        logits, torch.zeros(1, 2, 4), torch.zeros(1, 2, 5, 2), anchors, [faces]
    )
    assert float(class_loss) == pytest.approx(math.log(1 + math.exp(-1)) + math.log(2))
