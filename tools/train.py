"""Trains a detector, then evaluates its last checkpoint; the body is pcdet/cli/train.py.

    python train.py --cfg_file cfgs/kitti_models/pointpillar.yaml
    bash scripts/dist_train.sh 2 --cfg_file cfgs/kitti_models/pointpillar.yaml

Started again, it goes on from the newest checkpoint of its output folder that can be read; one run at a time may use
the folder. A file's ``KD`` block is left out, and the output folder is then ``<extra_tag>/plain``: the control beside
what train_kd.py distils.
"""

import _init_path  # noqa: F401

from pcdet.cli.train import main

if __name__ == "__main__":
    main()
