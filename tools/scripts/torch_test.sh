#!/usr/bin/env bash
# torch_test.sh NUM_PROCESSES --cfg_file CFG --ckpt CKPT [args]: dist_test.sh by OpenPCDet's other name
LAUNCHED_AS=$0 exec bash "$(dirname "${BASH_SOURCE[0]}")/_torchrun.sh" test.py "$@"
