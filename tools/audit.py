"""The page that shows what distillation won and lost, from a plan's results; the body is pcdet/cli/audit.py.

python audit.py --results ../output/experiments/lab_pointpillar/results.json
"""

import _init_path  # noqa: F401

from pcdet.cli.audit import main

if __name__ == "__main__":
    main()
