#!/usr/bin/env bash
# slurm_test_mgpu.sh PARTITION GPUS --cfg_file CFG --ckpt CKPT [args of test.py]; see _srun.sh for the environment
partition=${1:?PARTITION is missing} gpus=${2:?GPUS is missing}
exec bash "$(dirname "${BASH_SOURCE[0]}")/_srun.sh" test.py "$partition" eval "$gpus" "${@:3}"
