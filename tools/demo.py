"""Detects objects in point clouds and writes pictures and boxes; the body is pcdet/cli/demo.py.

python demo.py --cfg_file cfgs/kitti_models/pointpillar.yaml --ckpt CHECKPOINT.pth --data_path CLOUD.bin
"""

import _init_path  # noqa: F401

from pcdet.cli.demo import main

if __name__ == "__main__":
    main()
