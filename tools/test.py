"""Evaluates a checkpoint, or all of a folder; the body is pcdet/cli/test.py.

python test.py --cfg_file cfgs/kitti_models/pointpillar.yaml --ckpt CHECKPOINT.pth
python test.py --cfg_file cfgs/kitti_models/pointpillar.yaml --eval_all
"""

import _init_path  # noqa: F401

from pcdet.cli.test import main

if __name__ == "__main__":
    main()
