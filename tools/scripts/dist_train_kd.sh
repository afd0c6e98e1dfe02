#!/usr/bin/env bash
# dist_train_kd.sh NUM_PROCESSES --cfg_file CFG --teacher_ckpt CKPT [args of train_kd.py]
LAUNCHED_AS=$0 exec bash "$(dirname "${BASH_SOURCE[0]}")/_torchrun.sh" train_kd.py "$@"
