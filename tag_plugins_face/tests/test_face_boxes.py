"""The codec of boxes and landmarks is the public implementations'."""

import numpy as np
import pytest
import torch
from face_pictures import FACE_DATA

from tag_plugins_face.boxes import corners, decode_boxes, decode_landmarks, encode_boxes, encode_landmarks

VARIANCES = (0.1, 0.2)


@pytest.fixture(scope="module")
def stored():
    if not FACE_DATA.is_dir():
        pytest.skip("the shared data are not here")
    with np.load(FACE_DATA / "reference" / "face_codec.npz") as file:
        found = {name: torch.from_numpy(file[name]) for name in file}
    return {name: value.view(-1, 5, 2) if "landm" in name else value for name, value in found.items()}


@pytest.mark.parametrize(
    ("code", "given", "expected"),
    [
        (encode_boxes, "boxes", "encoded"),
        (decode_boxes, "encoded", "decoded"),
        (decode_boxes, "raw_loc", "raw_loc_decoded"),
        (encode_landmarks, "landms", "encoded_landm"),
        (decode_landmarks, "encoded_landm", "decoded_landm"),
        (decode_landmarks, "raw_landm", "raw_landm_decoded"),
    ],
)
def test_codes_are_the_stored_ones(stored, code, given, expected):
    found = code(stored[given], stored["priors"], VARIANCES)
    torch.testing.assert_close(found, stored[expected], rtol=1e-5, atol=1e-5)


def test_codes_are_those_computed_by_hand():
    prior = torch.tensor([[0.5, 0.5, 0.1, 0.2]])
    box, point = torch.tensor([[0.46, 0.42, 0.58, 0.62]]), torch.tensor([[[0.51, 0.52]]])
    torch.testing.assert_close(encode_boxes(box, prior, VARIANCES), torch.tensor([[2.0, 1.0, 0.911608, 0.0]]))
    torch.testing.assert_close(encode_landmarks(point, prior, VARIANCES), torch.tensor([[[1.0, 1.0]]]))


def test_decoding_undoes_encoding_for_a_batch_and_any_variances():
    torch.manual_seed(0)
    anchors = torch.rand(7, 4) + 0.5
    boxes, points = corners(torch.rand(3, 7, 4) + 0.5), torch.randn(3, 7, 5, 2)
    variances = (0.3, 0.05)
    torch.testing.assert_close(decode_boxes(encode_boxes(boxes, anchors, variances), anchors, variances), boxes)
    again = decode_landmarks(encode_landmarks(points, anchors, variances), anchors, variances)
    torch.testing.assert_close(again, points)
