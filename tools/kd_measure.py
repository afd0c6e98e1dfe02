"""Cost and strength of a distillation's losses, before it is trained; the body is pcdet/cli/kd_measure.py.

python kd_measure.py --cfg_file cfgs/simulated_models/kd/pointpillar_mgd.yaml --teacher_ckpt TEACHER.pth
"""

import _init_path  # noqa: F401

from pcdet.cli.kd_measure import main

if __name__ == "__main__":
    main()
