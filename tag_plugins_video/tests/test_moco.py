import numpy as np
import pytest
import torch
from torch import nn

from tag_core.errors import UserError
from tag_plugins_video.models.c3d_tiny import C3DTiny
from tag_plugins_video.tasks.moco import MoCo, info_nce


def build(**options):
    torch.manual_seed(0)
    return MoCo(C3DTiny(width=4), **{"dim": 8, "queue": 10, "momentum": 0.9, **options})


def batch(count=4, views=2):
    return {"clip": torch.randint(0, 256, (count, views, 4, 3, 16, 16), dtype=torch.uint8)}


def unit(*shape):
    rows = np.random.default_rng(0).standard_normal(shape)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def test_the_loss_is_that_of_the_paper():
    q, k, others = unit(5, 8), unit(3, 5, 8)[1], unit(7, 8)
    losses = []
    for i in range(5):
        own = np.exp(q[i] @ k[i] / 0.2)
        losses.append(-np.log(own / (own + sum(np.exp(q[i] @ o / 0.2) for o in others))))
    found = info_nce(torch.tensor(q), torch.tensor(k), torch.tensor(others), 0.2)
    assert float(found) == pytest.approx(np.mean(losses), rel=1e-9)


def test_queries_come_from_the_first_clip_and_keys_from_the_second():
    task, data = build().eval(), batch()
    task.key_encoder.module[1][2].bias.data += 1  # another network than the online one
    first, second = (task.prepare(data["clip"][:, view]) for view in (0, 1))
    queries = nn.functional.normalize(task.projector(task.backbone(first)), dim=1)
    keys = nn.functional.normalize(task.key_encoder(second), dim=1)
    torch.testing.assert_close(task(data)["loss"], info_nce(queries, keys, task.queue, 0.2))


def test_the_oldest_keys_leave_the_queue_first_also_where_it_wraps_round():
    task = build()
    rows = torch.arange(33.0)[:, None].expand(33, 8)
    expected = [*task.queue]
    for start in range(0, 33, 4):
        task.enqueue(rows[start : start + 4])
        expected = [*expected, *rows[start : start + 4]][-10:]
        at = int(task.position)
        assert torch.equal(torch.stack(expected), torch.cat([task.queue[at:], task.queue[:at]]))


def test_more_keys_than_the_queue_holds_leave_the_last_ones():
    task = build()
    task.enqueue(torch.arange(25.0)[:, None].expand(25, 8))
    assert sorted(task.queue[:, 0].tolist()) == list(range(15, 25))


def test_a_forward_pass_moves_the_queue_and_the_key_encoder_in_training_only():
    task, data = build().eval(), batch()
    before = {key: value.clone() for key, value in task.state_dict().items()}
    task(data)
    assert all(torch.equal(value, before[key]) for key, value in task.state_dict().items())
    task.train()
    task(data)
    assert int(task.position) == 4
    torch.testing.assert_close(task.queue[:4].norm(dim=1), torch.ones(4))
    assert torch.equal(task.queue[4:], before["queue"][4:])


def test_gradients_reach_the_online_network_and_nothing_else():
    task = build().train()
    task(batch())["loss"].backward()
    with_gradient = {name.split(".")[0] for name, p in task.named_parameters() if p.grad is not None}
    assert with_gradient == {"backbone", "projector"}
    assert not any(p.requires_grad for p in task.key_encoder.parameters())


def test_keys_do_not_depend_on_the_other_clips_of_the_batch():
    task, data = build().train(), batch()
    clips = task.prepare(data["clip"][:, 1])
    torch.testing.assert_close(task.key_encoder(clips)[:1], task.key_encoder(clips[:1]))


def test_wrong_views_and_options_are_refused():
    for views in (1, 3):
        with pytest.raises(UserError, match=rf"got {views}; set data\.train\.num_clips = 2"):
            build()(batch(views=views))
    with pytest.raises(ValueError, match="queue must be at least 1"):
        build(queue=0)
    with pytest.raises(ValueError, match=r"momentum must lie in \[0, 1\]"):
        build(momentum=2.0)
