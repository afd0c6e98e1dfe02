#!/usr/bin/env bash
# dist_train.sh NUM_PROCESSES --cfg_file CFG [args of train.py]
LAUNCHED_AS=$0 exec bash "$(dirname "${BASH_SOURCE[0]}")/_torchrun.sh" train.py "$@"
