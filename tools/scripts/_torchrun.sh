#!/usr/bin/env bash
# _torchrun.sh TOOL NUM_PROCESSES [args...]: runs tools/TOOL in so many processes, one per GPU, or on the CPU without one.
# torchrun finds a free port; when one process dies it ends the others.
# Several machines: set NNODES, NODE_RANK, MASTER_ADDR and MASTER_PORT on each, as for torchrun.
set -euo pipefail

tool=$1
shift
if ! [[ ${1:-} =~ ^[1-9][0-9]*$ ]]; then
    echo "usage: bash scripts/$(basename "${LAUNCHED_AS:-$0}") NUM_PROCESSES --cfg_file CFG [args...]; got '${1:-}' for NUM_PROCESSES" >&2
    exit 2
fi
processes=$1
shift

if [ -n "${MASTER_ADDR:-}" ]; then
    where=(--nnodes "${NNODES:-1}" --node_rank "${NODE_RANK:-0}" --master_addr "$MASTER_ADDR" --master_port "${MASTER_PORT:-29500}")
else
    where=(--standalone)
fi
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
tools=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
exec "${PYTHON:-python}" -m torch.distributed.run "${where[@]}" --nproc_per_node "$processes" \
    "$tools/$tool" --launcher pytorch "$@"
