#!/usr/bin/env bash
# _srun.sh TOOL PARTITION JOB_NAME GPUS [args...]: runs tools/TOOL under slurm, one process per GPU.
# Environment: GPUS_PER_NODE (8), CPUS_PER_TASK (5), SRUN_ARGS, PORT (a free one by default).
set -euo pipefail

tool=$1 partition=$2 job_name=$3 gpus=$4
shift 4
if [ "$gpus" -lt "${GPUS_PER_NODE:-8}" ]; then per_node=$gpus; else per_node=${GPUS_PER_NODE:-8}; fi
launcher=(--launcher slurm --tcp_port "${PORT:-$((20000 + RANDOM % 20000))}")
if [ "$gpus" = 1 ]; then launcher=(); fi
tools=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# SRUN_ARGS holds several words on purpose
# shellcheck disable=SC2086
exec srun -p "$partition" --job-name="$job_name" --gres="gpu:$per_node" --ntasks="$gpus" --ntasks-per-node="$per_node" \
    --cpus-per-task="${CPUS_PER_TASK:-5}" --kill-on-bad-exit=1 ${SRUN_ARGS:-} \
    "${PYTHON:-python}" -u "$tools/$tool" "${launcher[@]}" "$@"
