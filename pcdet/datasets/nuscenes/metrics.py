"""What nuScenes' evaluation measures, by the keys of ``evaluation.text.flatten``."""

from __future__ import annotations

from pcdet.datasets.metrics import EvaluationMetrics, Metric, MetricTable
from pcdet.datasets.nuscenes.evaluation.rules import DISTANCE_THRESHOLDS

_ERRORS = {"mATE": "trans_err", "mASE": "scale_err", "mAOE": "orient_err", "mAVE": "vel_err", "mAAE": "attr_err"}
_NDS = Metric(name="NDS", noun="NDS", of_all="NDS", factor=100)
_MAP = Metric(name="mAP", noun="mAP", of_class="/AP", of_all="mAP", factor=100, caption="AP")
_BY_DISTANCE = Metric(
    name="AP", noun="mAP", levels=tuple(map(str, DISTANCE_THRESHOLDS)), main_level="2.0",
    of_class="/AP@{level}", factor=100,
)  # fmt: skip

NUSCENES_METRICS = EvaluationMetrics(
    evaluation="nuScenes'",
    scores=(_NDS, _MAP),
    noun="NDS and mAP",
    summary=MetricTable(title="NDS and mAP", metrics=(_NDS, _MAP)),
    by_class=MetricTable(title="AP", metrics=(_MAP,)),
    tables=(
        MetricTable(title="mAP by distance (m)", metrics=(_BY_DISTANCE,)),
        MetricTable(
            title="errors of true positives",
            unit="m, 1 - IoU, rad, m/s, 1 - accuracy",
            metrics=tuple(
                Metric(name=name, noun=name, of_class=f"/{key}", of_all=key, digits=3) for name, key in _ERRORS.items()
            ),
        ),
    ),
    best="NDS",
)
