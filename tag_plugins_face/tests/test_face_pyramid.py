import torch
import torch.nn.functional as F

from tag_plugins_face.models.pyramid import FPN, SSH, Pyramid


def randomised(module):
    """In evaluation mode, with batch norms that change something."""
    for each in module.modules():
        if isinstance(each, torch.nn.BatchNorm2d):
            for tensor in (each.weight.data, each.running_var):
                tensor.uniform_(0.5, 1.5)
            for tensor in (each.bias.data, each.running_mean):
                tensor.uniform_(-1, 1)
    return module.eval()


def test_every_coarser_map_is_doubled_and_added_to_the_finer():
    torch.manual_seed(0)
    fpn = randomised(FPN([3, 5, 6], 8, 0.1))
    maps = [torch.randn(2, channels, side, side + 1) for channels, side in ((3, 11), (5, 6), (6, 3))]
    with torch.no_grad():
        found = fpn(maps)
        one, two, three = fpn.output1(maps[0]), fpn.output2(maps[1]), fpn.output3(maps[2])
        rows, columns = torch.arange(6) * 3 // 6, torch.arange(7) * 4 // 7
        two = fpn.merge2(two + three[:, :, rows][..., columns])
        rows, columns = torch.arange(11) * 6 // 11, torch.arange(12) * 7 // 12
        one = fpn.merge1(one + two[:, :, rows][..., columns])
    for each, expected in zip(found, (one, two, three), strict=True):
        torch.testing.assert_close(each, expected)


def test_contexts_see_three_five_and_seven_pixels_and_are_cut_off_at_zero():
    torch.manual_seed(0)
    ssh = randomised(SSH(8, 0.1)).double()
    picture = torch.randn(1, 8, 9, 9, dtype=torch.float64, requires_grad=True)
    found = ssh(picture)
    assert found.shape == (1, 8, 9, 9)
    assert (found >= 0).all()
    for channels, reach in ((slice(0, 4), 1), (slice(4, 6), 2), (slice(6, 8), 3)):
        ssh.eval()
        before = torch.cat(
            [
                ssh.conv3x3(picture),
                ssh.conv5x5_2(ssh.conv5x5_1(picture)),
                ssh.conv7x7_3(ssh.conv7x7_2(ssh.conv5x5_1(picture))),
            ],
            1,
        )
        torch.testing.assert_close(F.relu(before), found)
        (seen,) = torch.autograd.grad(before[:, channels, 4, 4].sum(), picture)
        expected = torch.zeros(9, 9, dtype=torch.bool)
        expected[4 - reach : 5 + reach, 4 - reach : 5 + reach] = True
        assert torch.equal(seen.abs().sum((0, 1)) > 0, expected)


def test_what_is_told_goes_by_map_row_column_and_anchor():
    torch.manual_seed(0)
    pyramid = randomised(Pyramid([4, 4, 4], 8, anchors=[3, 2, 1], outputs=5))
    maps = [torch.randn(2, 4, rows, rows + 1) for rows in (4, 2, 1)]
    with torch.no_grad():
        found = pyramid(maps)
        second = pyramid.heads[1](pyramid.ssh2(pyramid.fpn(maps)[1]))
    assert found.shape == (2, 4 * 5 * 3 + 2 * 3 * 2 + 1 * 2 * 1, 5)
    row, column, anchor = 1, 2, 1
    place = 4 * 5 * 3 + (row * 3 + column) * 2 + anchor
    torch.testing.assert_close(found[:, place], second[:, anchor * 5 : anchor * 5 + 5, row, column])


def test_activations_are_leaky_up_to_a_width_of_64():
    slopes = {width: Pyramid([4, 4, 4], width, [1, 1, 1], 16).fpn.output1[2].negative_slope for width in (64, 68)}
    assert slopes == {64: 0.1, 68: 0.0}
