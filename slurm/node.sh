#!/bin/bash
# One node's ranks under torchrun, started by job.sh as one task of srun a node:
# node.sh NODES RANKS COMMAND... -- WORD...: torchrun by COMMAND, the words for the launcher.
set -uo pipefail

# Python's torchrun would die of USR1, and leave its ranks behind: they are handed it here.
torchrun=
trap '[ -z "$torchrun" ] || hand_on "$torchrun"' USR1
trap '[ -z "$torchrun" ] || kill -TERM "$torchrun"' TERM

# The ranks among the processes below PROCESS, be they in a container: what has a rank's variables.
# shellcheck disable=SC2317,SC2329 # by the trap
hand_on() {
  local child
  for child in $(ps -o pid= --ppid "$1"); do
    # A rank may have ended meanwhile.
    if grep -qz '^LOCAL_RANK=' "/proc/$child/environ" 2>/dev/null; then
      kill -USR1 "$child" 2>/dev/null
    else
      hand_on "$child"
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

# static: rank 0 is on the first node, where MASTER_ADDR is; c10d would choose another one.
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
