"""Says what this machine has for pcdet: ``python -m pcdet.doctor [--json]``; the body is ``pcdet.cli.doctor``."""

if __name__ == "__main__":
    import sys

    from pcdet.cli.doctor import main

    sys.exit(main(prog="python -m pcdet.doctor"))
