"""The former name of compare.py, with the same flags."""

import _init_path  # noqa: F401

from pcdet.cli.compare import main

if __name__ == "__main__":
    main()
