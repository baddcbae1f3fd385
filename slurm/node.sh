#!/bin/bash
# Starts the ranks of one node with torchrun; job.sh runs it as one srun task per node:
# node.sh NODES RANKS COMMAND... -- ARGUMENT...: COMMAND is Python, ARGUMENT is for the launcher.
set -uo pipefail

# USR1 would end torchrun and leave its ranks running: forward it to the ranks instead.
torchrun=
trap '[ -z "$torchrun" ] || forward "$torchrun"' USR1
trap '[ -z "$torchrun" ] || kill -TERM "$torchrun"' TERM

# forward PROCESS: signal its descendants that have a rank's variables, also in a container.
# shellcheck disable=SC2317,SC2329 # called by the trap
forward() {
  local child
  for child in $(ps -o pid= --ppid "$1"); do
    # The rank may have ended already.
    if grep -qz '^LOCAL_RANK=' "/proc/$child/environ" 2>/dev/null; then
      kill -USR1 "$child" 2>/dev/null
    else
      forward "$child"
    fi
  done
}

nodes=$1 ranks=$2 command=()
shift 2
while [ "$1" != -- ]; do
  command+=("$1")
  shift
done
shift
python=${command[${#command[@]} - 1]} block=() hold=()
if env --block-signal=USR1 true 2>/dev/null; then # since coreutils 8.32
  hold=(env --block-signal=USR1) block=(env --block-signal=USR1 --block-signal=TERM)
fi

# static: rank 0 is on the first node, as MASTER_ADDR is; c10d may choose another one.
${hold[@]+"${hold[@]}"} "${command[@]}" -m torch.distributed.run --rdzv-backend=static \
  --nnodes="$nodes" --node-rank="$SLURM_NODEID" --nproc-per-node="$ranks" \
  --master-addr="$MASTER_ADDR" --master-port="$MASTER_PORT" \
  --max-restarts="${GEARSHIFT_MAX_RESTARTS:-0}" \
  --no-python ${block[@]+"${block[@]}"} "$python" -m launcher "$@" &
torchrun=$!
while
  wait "$torchrun"
  code=$?
  kill -0 "$torchrun" 2>/dev/null
do :; done
exit "$code"
