"""What KITTI's evaluation measures, by the keys of OpenPCDet's flat results."""

from __future__ import annotations

from pcdet.datasets.metrics import EvaluationMetrics, Metric, MetricTable

DIFFICULTIES = ("easy", "moderate", "hard")
_NOUNS = {"3d": "3D mAP", "bev": "BEV mAP", "aos": "AOS"}
_BRIEF = {"3d": ("mAP", "3D AP"), "bev": ("mAP", "BEV AP"), "aos": ("AOS", "AOS")}


def _metrics(names=tuple(_NOUNS), overlaps: str = "", points: str = "R40") -> tuple[Metric, ...]:
    return tuple(
        Metric(
            name=name, noun=_NOUNS[name], label=name.upper(), levels=DIFFICULTIES, main_level="moderate",
            of_class=f"_{name}{overlaps}/{{level}}_{points}", brief=_BRIEF[name][0], caption=_BRIEF[name][1],
            brief_levels=("easy", "mod.", "hard"), taken=points,
        )
        for name in names
    )  # fmt: skip


KITTI_METRICS = EvaluationMetrics(
    evaluation="KITTI's",
    scores=_metrics(("3d", "bev")),
    noun="moderate mAP",
    summary=MetricTable(title="mAP (R40)", metrics=_metrics()),
    by_class=MetricTable(title="AP (R40), moderate", metrics=_metrics(("3d", "bev"))),
    tables=(
        MetricTable(title="mAP (R11)", metrics=_metrics(points="R11")),
        MetricTable(title="mAP (R40), loose", metrics=_metrics(overlaps="_loose")),
        MetricTable(title="mAP (R11), loose", metrics=_metrics(overlaps="_loose", points="R11")),
    ),
    best="mean_3d/moderate_R40",
)
