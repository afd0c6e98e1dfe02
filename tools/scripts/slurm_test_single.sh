#!/usr/bin/env bash
# slurm_test_single.sh PARTITION --cfg_file CFG --ckpt CKPT [args of test.py]; see _srun.sh for the environment
partition=${1:?PARTITION is missing}
exec bash "$(dirname "${BASH_SOURCE[0]}")/_srun.sh" test.py "$partition" eval 1 "${@:2}"
