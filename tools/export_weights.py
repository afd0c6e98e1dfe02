"""Turns a checkpoint into a safetensors file, or such a file back into a checkpoint; see pcdet/cli/export_weights.py.

python export_weights.py --ckpt STUDENT.pth --out STUDENT.safetensors
python export_weights.py --ckpt STUDENT.safetensors --out STUDENT.pth
"""

import _init_path  # noqa: F401

from pcdet.cli.export_weights import main

if __name__ == "__main__":
    main()
