"""The official KITTI object evaluation, on the CPU, with OpenPCDet's names."""

from pcdet.datasets.kitti.kitti_object_eval_python.eval import get_official_eval_result

__all__ = ["get_official_eval_result"]
