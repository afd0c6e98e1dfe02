"""The simulator, ``python -m pcdet.datasets.simulated --out FOLDER``; the body is ``pcdet.cli.simulated``."""

if __name__ == "__main__":
    import sys

    from pcdet.cli.simulated import main

    sys.exit(main())
