# shellcheck shell=bash disable=SC2154 # job.sh sets what is read here
# The end of a generation: exit, requeue, or a successor job. Sourced by job.sh.

gearshift_max_idle_requeues=10

# gearshift_conclude OUTCOME: end this generation; an empty outcome is a crash.
gearshift_conclude() {
  local limit=${GEARSHIFT_MAX_CRASHES:-3} file=$gearshift_out/slurm/crashes count
  case $1 in
    done) exit 0 ;;
    failed) exit 1 ;;
    invalid)
      gearshift_leave_nothing
      exit 2
      ;;
  esac
  if [ -n "$gearshift_ended" ]; then
    # scancel, preemption or a lost node: Slurm itself requeues the job if it should continue.
    gearshift_say "ended by Slurm; checkpoints remain in $gearshift_out"
    exit 143
  fi
  gearshift_exit_if_requeued
  if [ "$1" != again ]; then
    echo "$GEARSHIFT_JOB $GEARSHIFT_GENERATION $(date -u +%Y-%m-%dT%H:%M:%SZ)" >>"$file"
    count=$(grep -c "^$GEARSHIFT_JOB " "$file")
    if [ "$count" -gt "$limit" ]; then
      gearshift_say "crashed $count times, GEARSHIFT_MAX_CRASHES is $limit;" \
        "checkpoints remain in $gearshift_out"
      exit 1
    fi
    gearshift_say "crashed ($count of at most $limit crashes)"
  fi
  gearshift_exit_without_progress
  gearshift_continue
}

# A node that Slurm considers DOWN may still run. Slurm then requeues the job under the same id: a
# requeue from here would end the next generation.
gearshift_exit_if_requeued() {
  gearshift_retry gearshift_query || return 0
  [ "$(gearshift_field JobState):$(gearshift_field Restarts)" != "RUNNING:$gearshift_restarts" ] ||
    return 0
  gearshift_say "Slurm considers this node down and has requeued job $gearshift_id"
  exit 143
}

# Remove the folders that this job made, if they are empty.
gearshift_leave_nothing() {
  local folder=$gearshift_out
  [ -n "$gearshift_made" ] || return 0
  rm -rf "${gearshift_out:?}/slurm"
  while rmdir "$folder" 2>/dev/null && [ "$folder" != "$gearshift_made" ]; do
    folder=${folder%/*}
  done
}

# A time limit shorter than the signal's lead time, for example, would requeue a job forever.
gearshift_exit_without_progress() {
  local file=$gearshift_out/slurm/saved newest count
  newest=$(find "$gearshift_out/checkpoints" -name 'step-*' -prune 2>/dev/null | sort | tail -n 1)
  newest=${newest##*/}
  echo "$GEARSHIFT_JOB ${newest:-nothing}" >>"$file"
  count=$(grep -cx "$GEARSHIFT_JOB ${newest:-nothing}" "$file")
  if [ "$count" -gt "$gearshift_max_idle_requeues" ]; then
    gearshift_say "no new checkpoint in $gearshift_max_idle_requeues requeues;" \
      "--time must exceed the 300 s of --signal=B:USR1@300"
    exit 1
  fi
}

# Start another generation: requeue, or submit a successor if the job cannot be requeued.
gearshift_continue() {
  if [ "$(gearshift_field Requeue)" != 0 ]; then
    gearshift_say "generation $GEARSHIFT_GENERATION ends; requeuing job $gearshift_id"
    # The requeue ends this shell and scontrol.
    if gearshift_retry scontrol requeue "$gearshift_id"; then sleep 600; fi
    sleep 5
    gearshift_say "job $gearshift_id was not requeued; submitting a successor"
  fi
  gearshift_submit --dependency="afterany:$gearshift_id" -- GEARSHIFT_JOB="$GEARSHIFT_JOB" \
    GEARSHIFT_GENERATION_BASE=$((GEARSHIFT_GENERATION + 1)) \
    ${gearshift_carried[@]+"${gearshift_carried[@]}"} || exit 1
  gearshift_say "continues as job $gearshift_submitted"
  if [ -e "$gearshift_out/slurm/next" ]; then
    gearshift_retry scontrol update JobId="$(cat "$gearshift_out/slurm/next")" \
      Dependency="afterok:$gearshift_submitted"
  fi
  exit 0
}

# gearshift_submit OPTION... -- VARIABLE=VALUE...: submit this job file again with its arguments;
# sets $gearshift_submitted to the id.
gearshift_submit() {
  local options=() name
  while [ "$1" != -- ]; do
    options+=("$1")
    shift
  done
  shift
  gearshift_read_options
  gearshift_submitted=$(
    # Variables of this job would be wrong in the next one.
    for name in $(compgen -e | grep -E '^(SLURM|SRUN)_' | grep -vx SLURM_CONF) SBATCH_WAIT; do
      unset "$name"
    done
    gearshift_retry env "$@" sbatch --parsable --export=ALL --chdir="$PWD" \
      "${gearshift_options[@]}" "${options[@]}" "$0" \
      ${gearshift_arguments[@]+"${gearshift_arguments[@]}"}
  ) || {
    gearshift_say "cannot submit a successor job; checkpoints remain; resume with" \
      " --resume ${gearshift_out}"
    return 1
  }
  gearshift_submitted=${gearshift_submitted%%;*} # the cluster's name may follow
}

# sbatch options of the command line are in no file: read them from the record of the job.
gearshift_read_options() {
  local one value
  gearshift_options=(--job-name="$SLURM_JOB_NAME")
  for one in Account:account Partition:partition QOS:qos TimeLimit:time Features:constraint \
    Reservation:reservation CPUs/Task:cpus-per-task MinMemoryNode:mem MinMemoryCPU:mem-per-cpu \
    TresPerNode:gres; do
    value=$(gearshift_field "${one%:*}")
    case ${one%:*}=$value in
      *='(null)' | *= | *=0 | CPUs/Task=1) continue ;;
      TresPerNode=*) value=${value//gres[:\/]/} ;;
    esac
    gearshift_options+=("--${one#*:}=$value")
  done
  [ "$(gearshift_field OverSubscribe)" != NO ] || gearshift_options+=(--exclusive)
  [ "$(gearshift_field Requeue)" != 0 ] || gearshift_options+=(--no-requeue)
  gearshift_are_nodes_in_header || gearshift_options+=(--nodes="$SLURM_JOB_NUM_NODES")
  [ -z "${SLURM_ARRAY_TASK_ID:-}" ] || gearshift_options+=(--array="$SLURM_ARRAY_TASK_ID")
}

# Whether the header's range of nodes, which may have been overridden, contains the allocation.
gearshift_are_nodes_in_header() {
  local range
  range=$(sed -n 's/^#SBATCH --nodes=\([0-9-]*\)$/\1/p' "$0" | tail -n 1)
  [ -n "$range" ] && [ "$SLURM_JOB_NUM_NODES" -ge "${range%-*}" ] &&
    [ "$SLURM_JOB_NUM_NODES" -le "${range#*-}" ]
}

# gearshift_retry COMMAND...: run it, and retry while the controller is unreachable.
gearshift_retry() {
  local left=20
  until "$@"; do
    left=$((left - 1))
    if [ "$left" = 0 ] || scontrol ping | grep -q UP; then return 1; fi
    sleep 30
  done
}
