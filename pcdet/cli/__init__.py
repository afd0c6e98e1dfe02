"""The bodies of the commands, one file each with ``main(argv=None)``, and what several of them share.

The scripts of ``tools/``, ``python -m pcdet...`` and the installed ``pcdet-*`` commands only call them.
"""
