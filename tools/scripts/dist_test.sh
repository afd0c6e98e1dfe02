#!/usr/bin/env bash
# dist_test.sh NUM_PROCESSES --cfg_file CFG --ckpt CKPT [args of test.py]
LAUNCHED_AS=$0 exec bash "$(dirname "${BASH_SOURCE[0]}")/_torchrun.sh" test.py "$@"
