r"""Compares detectors in one way: accuracy, size, speed and what training cost; the body is pcdet/cli/compare.py.

python compare.py --model teacher cfgs/kitti_models/pointpillar.yaml TEACHER.pth \
                  --model student cfgs/kitti_models/kd/pointpillar_4x.yaml STUDENT.pth --json out.json
"""

import _init_path  # noqa: F401

from pcdet.cli.compare import main

if __name__ == "__main__":
    main()
