#!/usr/bin/env bash
# torch_train.sh NUM_PROCESSES --cfg_file CFG [args]: dist_train.sh by OpenPCDet's other name
LAUNCHED_AS=$0 exec bash "$(dirname "${BASH_SOURCE[0]}")/_torchrun.sh" train.py "$@"
