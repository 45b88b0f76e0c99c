"""The losses in plain numpy, one pair or one sample at a time, from their papers; and gradients by differences."""

from __future__ import annotations

import numpy as np
import torch

LABELS = [0, 0, 1, 1, 0, 2, 2, 3]
"""Three identities with several features, and a single one."""


def features(count=8, dim=5, seed=0):
    return np.random.default_rng(seed).standard_normal((count, dim))


def cosines(count=6, classes=4, seed=0):
    return np.random.default_rng(seed).uniform(-0.999, 0.999, (count, classes))


def slope(function, x, step=1e-6):
    """Gradient of a function of an array by central differences."""
    gradient = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        ahead, behind = x.copy(), x.copy()
        ahead[index] += step
        behind[index] -= step
        gradient[index] = (function(ahead) - function(behind)) / (2 * step)
    return gradient


def same(loss, oracle, x, labels, tangent=None):
    """The loss has the oracle's value and its slope; where that differs from the oracle's, that of ``tangent``."""
    leaf = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    value = loss(leaf, torch.tensor(labels))
    value.backward()
    np.testing.assert_allclose(value.item(), oracle(x), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(leaf.grad.numpy(), slope(tangent or oracle, x), rtol=1e-5, atol=1e-7)
    return value.item()


def unit(x):
    return x / np.sqrt((x**2).sum(1, keepdims=True))


def triplet(x, labels, margin=0.3, adaptive=False):
    """Mean over the anchors that have a positive and a negative."""
    losses = []
    for a in range(len(x)):
        distances = [max(np.sqrt(((x[a] - x[b]) ** 2).sum()), 1e-6) for b in range(len(x))]
        positives = [d for b, d in enumerate(distances) if labels[b] == labels[a] and b != a]
        negatives = [d for b, d in enumerate(distances) if labels[b] != labels[a]]
        if not positives or not negatives:
            continue
        ap, an = max(positives), min(negatives)
        if adaptive:
            near = np.array([*positives, distances[a]])
            far = np.array(negatives)
            ap = (np.exp(near) * near).sum() / np.exp(near).sum()
            an = (np.exp(-far) * far).sum() / np.exp(-far).sum()
        losses.append(np.log1p(np.exp(ap - an)) if margin == "soft" else max(0.0, margin + ap - an))
    return np.mean(losses) if losses else 0.0


def contrastive(x, labels, positive_margin=1.0, negative_margin=0.5, reduction="nonzero", others=None, theirs=None):
    """``others`` and ``theirs`` are a memory, which holds x at its beginning."""
    x = unit(x)
    others, theirs = (x, labels) if others is None else (unit(others), theirs)
    pull, push = [], []
    for a in range(len(x)):
        for b in range(len(others)):
            c = sum(x[a] * others[b])
            if theirs[b] == labels[a] and a != b:
                pull.append(max(0.0, positive_margin - c))
            if theirs[b] != labels[a] and c > negative_margin:
                push.append(c - negative_margin if reduction == "nonzero" else c)
    if reduction == "anchor":
        return (sum(pull) + sum(push)) / len(x)
    pull = [value for value in pull if value > 0]
    return (np.mean(pull) if pull else 0.0) + (np.mean(push) if push else 0.0)


def circle(x, labels, scale=128.0, margin=0.25, at=None):
    """The weights of the pairs are those of the features ``at``, where they are constants."""
    x, fixed = unit(x), unit(x if at is None else at)
    losses = []
    for a in range(len(x)):
        positive = negative = 0.0
        for b in range(len(x)):
            c, constant = sum(x[a] * x[b]), sum(fixed[a] * fixed[b])
            if labels[a] == labels[b] and a != b:
                positive += np.exp(-scale * max(0.0, 1 + margin - constant) * (c - (1 - margin)))
            if labels[a] != labels[b]:
                negative += np.exp(scale * max(0.0, constant + margin) * (c - margin))
        if positive and negative:
            losses.append(np.log(1 + positive * negative))
    return np.mean(losses) if losses else 0.0


def margin_softmax(kind, c, labels, scale, margin, easy=False, at=None):
    """Mean of -log softmax of the true class; ``kind`` says how its logit is made from its cosine."""
    fixed = c if at is None else at
    losses = []
    for row, constant, y in zip(c, fixed, labels, strict=True):
        logits = [scale * value for value in row]
        if kind == "circle":
            logits = [scale * max(0.0, k + margin) * (v - margin) for v, k in zip(row, constant, strict=True)]
            logits[y] = scale * max(0.0, 1 + margin - constant[y]) * (row[y] - (1 - margin))
        elif kind == "cosface":
            logits[y] = scale * (row[y] - margin)
        elif kind == "arcface":
            angle = np.arccos(row[y])
            logits[y] = scale * np.cos(angle + margin)
            if easy and angle >= np.pi / 2:
                logits[y] = scale * row[y]
            if not easy and angle >= np.pi - margin:
                logits[y] = scale * (row[y] - margin * np.sin(margin))
        top = max(logits)
        losses.append(np.log(sum(np.exp(value - top) for value in logits)) + top - logits[y])
    return np.mean(losses)
