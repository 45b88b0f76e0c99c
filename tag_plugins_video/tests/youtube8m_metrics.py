"""YouTube-8M's metrics once more, one video and one prediction after the other, for tests and benchmarks."""

from __future__ import annotations


def best(scores: list[float], k: int) -> list[int]:
    return sorted(range(len(scores)), key=lambda c: -scores[c])[:k]  # sorted is stable: lower classes first


def hit_at_1(scores, labels) -> float:
    return sum(y[best(p, 1)[0]] for p, y in zip(scores, labels, strict=True)) / len(scores)


def perr(scores, labels) -> float:
    total = 0.0
    for p, y in zip(scores, labels, strict=True):
        if n := int(sum(y)):
            total += sum(1 for c in best(p, n) if y[c] and p[c] > 0) / n
    return total / len(scores)


def pooled_precision(pool: list[tuple[float, int]], positives: int) -> float:
    """Of (score, hit): mean precision at the hits; tied predictions are all there at once."""
    pool = sorted(pool, key=lambda entry: -entry[0])
    total, right, start = 0.0, 0, 0
    while start < len(pool):
        end = start
        while end < len(pool) and pool[end][0] == pool[start][0]:
            end += 1
        hits = sum(hit for _, hit in pool[start:end])
        right += hits
        total += hits * right / end
        start = end
    return total / positives if positives else float("nan")


def gap(scores, labels, k: int) -> float:
    pool = [(p[c], int(y[c])) for p, y in zip(scores, labels, strict=True) for c in best(p, k)]
    return pooled_precision(pool, int(sum(map(sum, labels))))


def class_ap(scores, labels, k: int) -> list[float]:
    tops = [best(p, k) for p in scores]
    found = []
    for c in range(len(scores[0])):
        pool = [(p[c], int(y[c])) for p, y, top in zip(scores, labels, tops, strict=True) if c in top]
        positives = int(sum(y[c] for y in labels))
        found.append(pooled_precision(pool, positives) if positives else 0.0)
    return found
