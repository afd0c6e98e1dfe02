"""Distils a teacher into a student; the body is pcdet/cli/train_kd.py.

    python train_kd.py --cfg_file cfgs/kitti_models/kd/pointpillar_4x.yaml --teacher_ckpt TEACHER.pth

The student's checkpoints are plain detector checkpoints: test.py needs to know nothing of distillation.
"""

import _init_path  # noqa: F401

from pcdet.cli.train_kd import main

if __name__ == "__main__":
    main()
