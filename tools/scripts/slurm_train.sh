#!/usr/bin/env bash
# slurm_train.sh PARTITION JOB_NAME GPUS --cfg_file CFG [args of train.py]; see _srun.sh for the environment
exec bash "$(dirname "${BASH_SOURCE[0]}")/_srun.sh" train.py "${@:?PARTITION JOB_NAME GPUS are missing}"
