"""``KD.WEIGHT``: one number that makes every loss of a block stronger or weaker."""

import pytest
from kd_pairs import LOGITS, MAP

from pcdet.models.kd import schema
from pcdet.registry import ConfigError


def resolve(**keys):
    node = {"TEACHER": {"CFG": "teacher.yaml", "CKPT": "teacher.pth"}, "LOSSES": [MAP, LOGITS], **keys}
    return schema.resolve(node, lambda tap: "map")


def test_the_weight_multiplies_that_of_every_loss():
    plain, _ = resolve()
    strong, written = resolve(WEIGHT=3.0)
    before = [loss["WEIGHT"] for loss in plain.losses]
    assert [loss["WEIGHT"] for loss in strong.losses] == [3.0 * weight for weight in before]
    assert [loss["WEIGHT"] for loss in written["LOSSES"]] == [3.0 * weight for weight in before]


def test_the_resolved_block_resolves_to_itself_with_a_weight_too():
    _, written = resolve(WEIGHT=0.5)
    assert schema.resolve(written, lambda tap: "map")[1] == written


def test_a_weight_below_zero_is_refused_by_name():
    with pytest.raises(ConfigError, match=r"KD.WEIGHT: must not be negative, got -1"):
        resolve(WEIGHT=-1.0)
