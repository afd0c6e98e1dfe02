"""Carries out a plan of experiments; the body is pcdet/cli/experiment.py.

python experiment.py --plan cfgs/experiments/lab_pointpillar.yaml --jobs 2
"""

import _init_path  # noqa: F401

from pcdet.cli.experiment import main

if __name__ == "__main__":
    main()
