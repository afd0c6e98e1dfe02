"""A folder of OpenPCDet's files as its users have it: ``tools/cfgs`` with models that name a base, as text."""

from __future__ import annotations

from pathlib import Path

import yaml

CLASSES = ["Car", "Pedestrian", "Cyclist"]
SIZES = [[3.9, 1.6, 1.56], [0.8, 0.6, 1.73], [1.76, 0.6, 1.73]]
COVERED = ("pointpillar", "second", "second_multihead", "pointrcnn", "pointrcnn_iou")
# Files of detectors that are not covered -> the names in them that are not, by key.
NOT_COVERED = {
    "kitti_models/pv_rcnn": {
        "MODEL.NAME": "PVRCNN",
        "MODEL.PFE.NAME": "VoxelSetAbstraction",
        "MODEL.POINT_HEAD.NAME": "PointHeadSimple",
        "MODEL.ROI_HEAD.NAME": "PVRCNNHead",
    },
    "kitti_models/PartA2": {
        "MODEL.NAME": "PartA2Net",
        "MODEL.BACKBONE_3D.NAME": "UNetV2",
        "MODEL.POINT_HEAD.NAME": "PointIntraPartOffsetHead",
        "MODEL.ROI_HEAD.NAME": "PartA2FCHead",
    },
    "kitti_models/PartA2_free": {
        "MODEL.BACKBONE_3D.NAME": "UNetV2",
        "MODEL.POINT_HEAD.NAME": "PointIntraPartOffsetHead",
        "MODEL.ROI_HEAD.NAME": "PartA2FCHead",
    },
    "kitti_models/voxel_rcnn_car": {"MODEL.NAME": "VoxelRCNN", "MODEL.ROI_HEAD.NAME": "VoxelRCNNHead"},
    "kitti_models/second_iou": {"MODEL.NAME": "SECONDNetIoU", "MODEL.ROI_HEAD.NAME": "SECONDHead"},
    "kitti_models/pillarnet": {
        "MODEL.NAME": "PillarNet",
        "MODEL.VFE.NAME": "DynamicPillarVFESimple2D",
        "MODEL.BACKBONE_3D.NAME": "PillarRes18BackBone8x",
        "MODEL.BACKBONE_2D.NAME": "BaseBEVBackboneV1",
    },
    "waymo_models/second": {"DATA_CONFIG.DATASET": "WaymoDataset"},
}


def write_files(root: Path) -> Path:
    """Writes all files below ``root/tools/cfgs`` and returns that folder."""
    files = {"dataset_configs/kitti_dataset": _kitti(), "dataset_configs/waymo_dataset": {"DATASET": "WaymoDataset"}}
    files["dataset_configs/waymo_dataset"].update(SAMPLED_INTERVAL={"train": 5, "test": 1}, DATA_PATH="../data/waymo")
    files["dataset_configs/nuscenes_dataset"] = _nuscenes()
    files |= {f"kitti_models/{name}": globals()[f"_{name}"]() for name in COVERED}
    files |= {name: _with_names(name, names) for name, names in NOT_COVERED.items()}
    for name, content in files.items():
        path = root / "tools/cfgs" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(content, sort_keys=False))
    return root / "tools/cfgs"


def _with_names(name: str, names: dict[str, str]) -> dict:
    """SECOND's file, or PointRCNN's, with other modules' names in it: their own keys do not matter any more."""
    config = _pointrcnn() if name == "kitti_models/PartA2_free" else _second()
    if not name.startswith("kitti"):
        base = name.partition("_models")[0]
        config["DATA_CONFIG"] = {"_BASE_CONFIG_": f"cfgs/dataset_configs/{base}_dataset.yaml"}
    for key, value in names.items():
        section, *slot, _ = key.split(".")
        if slot:
            config[section][slot[0]] = {"NAME": value}
        elif section == "MODEL":
            config["MODEL"]["NAME"] = value
    return config


# -------------------------------------------------------------------------------------------------------------- data


def _gt_sampling(cars: int, whole_scene: bool) -> dict:
    return {
        "NAME": "gt_sampling",
        "USE_ROAD_PLANE": True,
        "DB_INFO_PATH": ["kitti_dbinfos_train.pkl"],
        "PREPARE": {
            "filter_by_min_points": ["Car:5", "Pedestrian:5", "Cyclist:5"],
            "filter_by_difficulty": [-1],
        },
        "SAMPLE_GROUPS": [f"Car:{cars}", "Pedestrian:15", "Cyclist:15"],
        "NUM_POINT_FEATURES": 4,
        "DATABASE_WITH_FAKELIDAR": False,
        "REMOVE_EXTRA_WIDTH": [0.0, 0.0, 0.0],
        "LIMIT_WHOLE_SCENE": whole_scene,
    }


def _augmentor(cars: int, whole_scene: bool) -> dict:
    return {
        "DISABLE_AUG_LIST": ["placeholder"],
        "AUG_CONFIG_LIST": [
            _gt_sampling(cars, whole_scene),
            {"NAME": "random_world_flip", "ALONG_AXIS_LIST": ["x"]},
            {"NAME": "random_world_rotation", "WORLD_ROT_ANGLE": [-0.78539816, 0.78539816]},
            {"NAME": "random_world_scaling", "WORLD_SCALE_RANGE": [0.95, 1.05]},
        ],
    }


MASK = {"NAME": "mask_points_and_boxes_outside_range", "REMOVE_OUTSIDE_BOXES": True}
SHUFFLE = {"NAME": "shuffle_points", "SHUFFLE_ENABLED": {"train": True, "test": False}}


def _voxels(size: list[float], points: int) -> dict:
    return {
        "NAME": "transform_points_to_voxels",
        "VOXEL_SIZE": size,
        "MAX_POINTS_PER_VOXEL": points,
        "MAX_NUMBER_OF_VOXELS": {"train": 16000, "test": 40000},
    }


def _kitti() -> dict:
    features = ["x", "y", "z", "intensity"]
    return {
        "DATASET": "KittiDataset",
        "DATA_PATH": "../data/kitti",
        "POINT_CLOUD_RANGE": [0, -40, -3, 70.4, 40, 1],
        "DATA_SPLIT": {"train": "train", "test": "val"},
        "INFO_PATH": {"train": ["kitti_infos_train.pkl"], "test": ["kitti_infos_val.pkl"]},
        "GET_ITEM_LIST": ["points"],
        "FOV_POINTS_ONLY": True,
        "DATA_AUGMENTOR": _augmentor(20, True),
        "POINT_FEATURE_ENCODING": {
            "encoding_type": "absolute_coordinates_encoding",
            "used_feature_list": features,
            "src_feature_list": features,
        },
        "DATA_PROCESSOR": [MASK, SHUFFLE, _voxels([0.05, 0.05, 0.1], 5)],
    }


NUSCENES_CLASSES = (
    "car truck construction_vehicle bus trailer barrier motorcycle bicycle pedestrian traffic_cone".split()
)


def _nuscenes() -> dict:
    features = ["x", "y", "z", "intensity", "timestamp"]
    sampling = {
        "NAME": "gt_sampling",
        "DB_INFO_PATH": ["nuscenes_dbinfos_10sweeps_withvelo.pkl"],
        "PREPARE": {"filter_by_min_points": [f"{name}:5" for name in NUSCENES_CLASSES]},
        "SAMPLE_GROUPS": [f"{n}:{c}" for n, c in zip(NUSCENES_CLASSES, (2, 3, 7, 4, 6, 2, 6, 6, 2, 2), strict=True)],
        "NUM_POINT_FEATURES": 5,
        "DATABASE_WITH_FAKELIDAR": False,
        "REMOVE_EXTRA_WIDTH": [0.0, 0.0, 0.0],
        "LIMIT_WHOLE_SCENE": True,
    }
    return {
        "DATASET": "NuScenesDataset",
        "DATA_PATH": "../data/nuscenes",
        "VERSION": "v1.0-trainval",
        "MAX_SWEEPS": 10,
        "PRED_VELOCITY": True,
        "SET_NAN_VELOCITY_TO_ZEROS": True,
        "FILTER_MIN_POINTS_IN_GT": 1,
        "DATA_SPLIT": {"train": "train", "test": "val"},
        "INFO_PATH": {"train": ["nuscenes_infos_10sweeps_train.pkl"], "test": ["nuscenes_infos_10sweeps_val.pkl"]},
        "POINT_CLOUD_RANGE": [-51.2, -51.2, -5.0, 51.2, 51.2, 3.0],
        "BALANCED_RESAMPLING": True,
        "DATA_AUGMENTOR": {
            "DISABLE_AUG_LIST": ["placeholder"],
            "AUG_CONFIG_LIST": [
                sampling,
                {"NAME": "random_world_flip", "ALONG_AXIS_LIST": ["x", "y"]},
                {"NAME": "random_world_rotation", "WORLD_ROT_ANGLE": [-0.3925, 0.3925]},
                {"NAME": "random_world_scaling", "WORLD_SCALE_RANGE": [0.95, 1.05]},
            ],
        },
        "POINT_FEATURE_ENCODING": {
            "encoding_type": "absolute_coordinates_encoding",
            "used_feature_list": features,
            "src_feature_list": features,
        },
        "DATA_PROCESSOR": [
            MASK,
            {"NAME": "shuffle_points", "SHUFFLE_ENABLED": {"train": True, "test": True}},
            {
                "NAME": "transform_points_to_voxels",
                "VOXEL_SIZE": [0.1, 0.1, 0.2],
                "MAX_POINTS_PER_VOXEL": 10,
                "MAX_NUMBER_OF_VOXELS": {"train": 60000, "test": 60000},
            },
        ],
    }


# ------------------------------------------------------------------------------------------------------------ models


def _file(model: dict, lr: float = 0.003, batch_size: int = 4, **data) -> dict:
    return {
        "CLASS_NAMES": CLASSES,
        "DATA_CONFIG": {"_BASE_CONFIG_": "cfgs/dataset_configs/kitti_dataset.yaml", **data},
        "MODEL": model,
        "OPTIMIZATION": {
            "BATCH_SIZE_PER_GPU": batch_size,
            "NUM_EPOCHS": 80,
            "OPTIMIZER": "adam_onecycle",
            "LR": lr,
            "WEIGHT_DECAY": 0.01,
            "MOMENTUM": 0.9,
            "MOMS": [0.95, 0.85],
            "PCT_START": 0.4,
            "DIV_FACTOR": 10,
            "DECAY_STEP_LIST": [35, 45],
            "LR_DECAY": 0.1,
            "LR_CLIP": 0.0000001,
            "LR_WARMUP": False,
            "WARMUP_EPOCH": 1,
            "GRAD_NORM_CLIP": 10,
        },
    }


def _post_processing(threshold: float = 0.01, multi_classes: bool = False) -> dict:
    return {
        "RECALL_THRESH_LIST": [0.3, 0.5, 0.7],
        "SCORE_THRESH": 0.1,
        "OUTPUT_RAW_SCORE": False,
        "EVAL_METRIC": "kitti",
        "NMS_CONFIG": _nms(threshold, 4096, 500, multi_classes),
    }


def _nms(threshold: float, before: int, after: int, multi_classes: bool = False) -> dict:
    return {
        "MULTI_CLASSES_NMS": multi_classes,
        "NMS_TYPE": "nms_gpu",
        "NMS_THRESH": threshold,
        "NMS_PRE_MAXSIZE": before,
        "NMS_POST_MAXSIZE": after,
    }


def _bev(layers, strides, filters, ups, up_filters) -> dict:
    return {
        "NAME": "BaseBEVBackbone",
        "LAYER_NUMS": layers,
        "LAYER_STRIDES": strides,
        "NUM_FILTERS": filters,
        "UPSAMPLE_STRIDES": ups,
        "NUM_UPSAMPLE_FILTERS": up_filters,
    }


def _anchor_head(name: str, stride: int, bottoms: list[float], **own) -> dict:
    rows = zip(CLASSES, SIZES, bottoms, [0.6, 0.5, 0.5], [0.45, 0.35, 0.35], strict=True)
    return {
        "NAME": name,
        "CLASS_AGNOSTIC": False,
        "USE_DIRECTION_CLASSIFIER": True,
        "DIR_OFFSET": 0.78539,
        "DIR_LIMIT_OFFSET": 0.0,
        "NUM_DIR_BINS": 2,
        **own,
        "ANCHOR_GENERATOR_CONFIG": [
            {
                "class_name": class_name,
                "anchor_sizes": [size],
                "anchor_rotations": [0, 1.57],
                "anchor_bottom_heights": [bottom],
                "align_center": False,
                "feature_map_stride": stride,
                "matched_threshold": matched,
                "unmatched_threshold": unmatched,
            }
            for class_name, size, bottom, matched, unmatched in rows
        ],
        "TARGET_ASSIGNER_CONFIG": {
            "NAME": "AxisAlignedTargetAssigner",
            "POS_FRACTION": -1.0,
            "SAMPLE_SIZE": 512,
            "NORM_BY_NUM_EXAMPLES": False,
            "MATCH_HEIGHT": False,
            "BOX_CODER": "ResidualCoder",
        },
        "LOSS_CONFIG": {
            "LOSS_WEIGHTS": {"cls_weight": 1.0, "loc_weight": 2.0, "dir_weight": 0.2, "code_weights": [1.0] * 7}
        },
    }


def _pointpillar() -> dict:
    model = {
        "NAME": "PointPillar",
        "VFE": {
            "NAME": "PillarVFE",
            "WITH_DISTANCE": False,
            "USE_ABSLOTE_XYZ": True,
            "USE_NORM": True,
            "NUM_FILTERS": [64],
        },
        "MAP_TO_BEV": {"NAME": "PointPillarScatter", "NUM_BEV_FEATURES": 64},
        "BACKBONE_2D": _bev([3, 5, 5], [2, 2, 2], [64, 128, 256], [1, 2, 4], [128, 128, 128]),
        "DENSE_HEAD": _anchor_head("AnchorHeadSingle", 2, [-1.78, -0.6, -0.6]),
        "POST_PROCESSING": _post_processing(),
    }
    return _file(
        model,
        POINT_CLOUD_RANGE=[0, -39.68, -3, 69.12, 39.68, 1],
        DATA_PROCESSOR=[MASK, SHUFFLE, _voxels([0.16, 0.16, 4], 32)],
        DATA_AUGMENTOR=_augmentor(15, False),
    )


def _second() -> dict:
    model = {
        "NAME": "SECONDNet",
        "VFE": {"NAME": "MeanVFE"},
        "BACKBONE_3D": {"NAME": "VoxelBackBone8x"},
        "MAP_TO_BEV": {"NAME": "HeightCompression", "NUM_BEV_FEATURES": 256},
        "BACKBONE_2D": _bev([5, 5], [1, 2], [128, 256], [1, 2], [256, 256]),
        "DENSE_HEAD": _anchor_head("AnchorHeadSingle", 8, [-1.78, -0.6, -0.6]),
        "POST_PROCESSING": _post_processing(),
    }
    return _file(model)


def _second_multihead() -> dict:
    config = _second()
    config["MODEL"]["DENSE_HEAD"] = _anchor_head(
        "AnchorHeadMulti",
        8,
        [-1.6, -1.6, -1.6],
        USE_MULTIHEAD=True,
        SEPARATE_MULTIHEAD=True,
        SHARED_CONV_NUM_FILTER=64,
        RPN_HEAD_CFGS=[{"HEAD_CLS_NAME": [name]} for name in CLASSES],
    )
    config["MODEL"]["POST_PROCESSING"] = _post_processing(0.1, multi_classes=True)
    return config


def _pointrcnn() -> dict:
    model = {
        "NAME": "PointRCNN",
        "BACKBONE_3D": {
            "NAME": "PointNet2MSG",
            "SA_CONFIG": {
                "NPOINTS": [4096, 1024, 256, 64],
                "RADIUS": [[0.1, 0.5], [0.5, 1.0], [1.0, 2.0], [2.0, 4.0]],
                "NSAMPLE": [[16, 32]] * 4,
                "MLPS": [
                    [[16, 16, 32], [32, 32, 64]],
                    [[64, 64, 128], [64, 96, 128]],
                    [[128, 196, 256], [128, 196, 256]],
                    [[256, 256, 512], [256, 384, 512]],
                ],
            },
            "FP_MLPS": [[128, 128], [256, 256], [512, 512], [512, 512]],
        },
        "POINT_HEAD": {
            "NAME": "PointHeadBox",
            "CLS_FC": [256, 256],
            "REG_FC": [256, 256],
            "CLASS_AGNOSTIC": False,
            "USE_POINT_FEATURES_BEFORE_FUSION": False,
            "TARGET_CONFIG": {
                "GT_EXTRA_WIDTH": [0.2, 0.2, 0.2],
                "BOX_CODER": "PointResidualCoder",
                "BOX_CODER_CONFIG": {"use_mean_size": True, "mean_size": SIZES},
            },
            "LOSS_CONFIG": {
                "LOSS_REG": "WeightedSmoothL1Loss",
                "LOSS_WEIGHTS": {"point_cls_weight": 1.0, "point_box_weight": 1.0, "code_weights": [1.0] * 8},
            },
        },
        "ROI_HEAD": _point_rcnn_head(),
        "POST_PROCESSING": _post_processing(0.1),
    }
    sample = {"NAME": "sample_points", "NUM_POINTS": {"train": 16384, "test": 16384}}
    return _file(model, lr=0.01, batch_size=2, DATA_PROCESSOR=[MASK, sample, SHUFFLE])


def _point_rcnn_head() -> dict:
    return {
        "NAME": "PointRCNNHead",
        "CLASS_AGNOSTIC": True,
        "ROI_POINT_POOL": {"POOL_EXTRA_WIDTH": [0.0, 0.0, 0.0], "NUM_SAMPLED_POINTS": 512, "DEPTH_NORMALIZER": 70.0},
        "XYZ_UP_LAYER": [128, 128],
        "CLS_FC": [256, 256],
        "REG_FC": [256, 256],
        "DP_RATIO": 0.0,
        "USE_BN": False,
        "SA_CONFIG": {
            "NPOINTS": [128, 32, -1],
            "RADIUS": [0.2, 0.4, 100],
            "NSAMPLE": [16, 16, 16],
            "MLPS": [[128, 128, 128], [128, 128, 256], [256, 256, 512]],
        },
        "NMS_CONFIG": {"TRAIN": _nms(0.8, 9000, 512), "TEST": _nms(0.85, 9000, 100)},
        "TARGET_CONFIG": {
            "BOX_CODER": "ResidualCoder",
            "ROI_PER_IMAGE": 128,
            "FG_RATIO": 0.5,
            "SAMPLE_ROI_BY_EACH_CLASS": True,
            "CLS_SCORE_TYPE": "cls",
            "CLS_FG_THRESH": 0.6,
            "CLS_BG_THRESH": 0.45,
            "CLS_BG_THRESH_LO": 0.1,
            "HARD_BG_RATIO": 0.8,
            "REG_FG_THRESH": 0.55,
        },
        "LOSS_CONFIG": {
            "CLS_LOSS": "BinaryCrossEntropy",
            "REG_LOSS": "smooth-l1",
            "CORNER_LOSS_REGULARIZATION": True,
            "LOSS_WEIGHTS": {
                "rcnn_cls_weight": 1.0,
                "rcnn_reg_weight": 1.0,
                "rcnn_corner_weight": 1.0,
                "code_weights": [1.0] * 7,
            },
        },
    }


def _pointrcnn_iou() -> dict:
    config = _pointrcnn()
    config["MODEL"]["ROI_HEAD"]["TARGET_CONFIG"] |= {
        "CLS_SCORE_TYPE": "roi_iou",
        "CLS_FG_THRESH": 0.7,
        "CLS_BG_THRESH": 0.25,
    }
    return config
