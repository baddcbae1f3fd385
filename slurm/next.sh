# shellcheck shell=bash disable=SC2154 # job.sh sets what is read here
# What comes after a life of a training: its end, a requeue, or a job that goes on. Of job.sh.

gearshift_lives_in_vain=10

# gearshift_conclude WORD: end this life by the first word of its outcome; none: it crashed.
gearshift_conclude() {
  local limit=${GEARSHIFT_MAX_CRASHES:-3} file=$gearshift_out/slurm/crashes count
  case $1 in
    done) exit 0 ;;
    failed) exit 1 ;;
    words)
      gearshift_leave_nothing
      exit 2
      ;;
  esac
  if [ -n "$gearshift_ended" ]; then
    # scancel, a preemption, a lost node: where the job is to come back, Slurm sees to it.
    gearshift_say "ended by Slurm; what was saved stays in $gearshift_out"
    exit 143
  fi
  gearshift_leave_it_to_a_later_life
  if [ "$1" != again ]; then
    echo "$GEARSHIFT_JOB $GEARSHIFT_GENERATION $(date -u +%Y-%m-%dT%H:%M:%SZ)" >>"$file"
    count=$(grep -c "^$GEARSHIFT_JOB " "$file")
    if [ "$count" -gt "$limit" ]; then
      gearshift_say "crashed $count times, and GEARSHIFT_MAX_CRASHES is $limit;" \
        "what was saved stays in $gearshift_out"
      exit 1
    fi
    gearshift_say "crashed ($count of at most $limit)"
  fi
  gearshift_refuse_to_turn_in_circles
  gearshift_go_on
}

# A node that Slurm calls DOWN may run on. The job is then queued or begun anew by Slurm, under the
# same id: a requeue from here would end the life that came after this one.
gearshift_leave_it_to_a_later_life() {
  gearshift_insist gearshift_ask || return 0
  [ "$(gearshift_told JobState):$(gearshift_told Restarts)" != "RUNNING:$gearshift_restarts" ] ||
    return 0
  gearshift_say "Slurm has given up this node and begins job $gearshift_id anew by itself"
  exit 143
}

# The folders that this job has made, where nothing else came into them.
gearshift_leave_nothing() {
  local folder=$gearshift_out
  [ -n "$gearshift_made" ] || return 0
  rm -rf "${gearshift_out:?}/slurm"
  while rmdir "$folder" 2>/dev/null && [ "$folder" != "$gearshift_made" ]; do
    folder=${folder%/*}
  done
}

# A time limit below what the signal comes ahead of it, say, would requeue a job for ever.
gearshift_refuse_to_turn_in_circles() {
  local file=$gearshift_out/slurm/saved newest count
  newest=$(find "$gearshift_out/checkpoints" -name 'step-*' -prune 2>/dev/null | sort | tail -n 1)
  newest=${newest##*/}
  echo "$GEARSHIFT_JOB ${newest:-nothing}" >>"$file"
  count=$(grep -cx "$GEARSHIFT_JOB ${newest:-nothing}" "$file")
  if [ "$count" -gt "$gearshift_lives_in_vain" ]; then
    gearshift_say "$gearshift_lives_in_vain lives have come no further than ${newest:-nothing};" \
      "is --time longer than what --signal=B:USR1@300 comes ahead of its end?"
    exit 1
  fi
}

# Another life: by requeue, or where the job may not be requeued in a job behind this one.
gearshift_go_on() {
  if [ "$(gearshift_told Requeue)" != 0 ]; then
    gearshift_say "life $GEARSHIFT_GENERATION ends; requeues job $gearshift_id"
    # Slurm ends this shell while it is at it, and scontrol too.
    if gearshift_insist scontrol requeue "$gearshift_id"; then sleep 600; fi
    sleep 5
    gearshift_say "job $gearshift_id is not requeued; another job is to go on"
  fi
  gearshift_submit --dependency="afterany:$gearshift_id" -- GEARSHIFT_JOB="$GEARSHIFT_JOB" \
    GEARSHIFT_GENERATION_BASE=$((GEARSHIFT_GENERATION + 1)) \
    ${gearshift_carried[@]+"${gearshift_carried[@]}"} || exit 1
  gearshift_say "goes on in job $gearshift_submitted"
  if [ -e "$gearshift_out/slurm/next" ]; then
    gearshift_insist scontrol update JobId="$(cat "$gearshift_out/slurm/next")" \
      Dependency="afterok:$gearshift_submitted"
  fi
  exit 0
}

# gearshift_submit OPTION... -- VARIABLE=VALUE...: queue this job file, with its words, once more.
# The job's id is in $gearshift_submitted then.
gearshift_submit() {
  local options=() name
  while [ "$1" != -- ]; do
    options+=("$1")
    shift
  done
  shift
  gearshift_read_asked
  gearshift_submitted=$(
    # They tell of this job, and would be believed of the next one.
    for name in $(compgen -e | grep -E '^(SLURM|SRUN)_' | grep -vx SLURM_CONF) SBATCH_WAIT; do
      unset "$name"
    done
    gearshift_insist env "$@" sbatch --parsable --export=ALL --chdir="$PWD" \
      "${gearshift_asked[@]}" "${options[@]}" "$0" ${gearshift_words[@]+"${gearshift_words[@]}"}
  ) || {
    gearshift_say "no job could be queued to go on; what was saved stays, and the words" \
      "--resume ${gearshift_out}  go on with it"
    return 1
  }
  gearshift_submitted=${gearshift_submitted%%;*} # the cluster's name may follow
}

# What was asked of sbatch on its command line is in no file: what Slurm tells of it.
gearshift_read_asked() {
  local one value
  gearshift_asked=(--job-name="$SLURM_JOB_NAME")
  for one in Account:account Partition:partition QOS:qos TimeLimit:time Features:constraint \
    Reservation:reservation CPUs/Task:cpus-per-task MinMemoryNode:mem MinMemoryCPU:mem-per-cpu \
    TresPerNode:gres; do
    value=$(gearshift_told "${one%:*}")
    case ${one%:*}=$value in
      *='(null)' | *= | *=0 | CPUs/Task=1) continue ;;
      TresPerNode=*) value=${value//gres[:\/]/} ;;
    esac
    gearshift_asked+=("--${one#*:}=$value")
  done
  [ "$(gearshift_told OverSubscribe)" != NO ] || gearshift_asked+=(--exclusive)
  [ "$(gearshift_told Requeue)" != 0 ] || gearshift_asked+=(--no-requeue)
  gearshift_are_nodes_in_header || gearshift_asked+=(--nodes="$SLURM_JOB_NUM_NODES")
  [ -z "${SLURM_ARRAY_TASK_ID:-}" ] || gearshift_asked+=(--array="$SLURM_ARRAY_TASK_ID")
}

# Whether the header's range of nodes, which may have been set aside, holds what the job was given.
gearshift_are_nodes_in_header() {
  local range
  range=$(sed -n 's/^#SBATCH --nodes=\([0-9-]*\)$/\1/p' "$0" | tail -n 1)
  [ -n "$range" ] && [ "$SLURM_JOB_NUM_NODES" -ge "${range%-*}" ] &&
    [ "$SLURM_JOB_NUM_NODES" -le "${range#*-}" ]
}

# gearshift_insist COMMAND...: carry it out, again and again while nobody is there to answer it.
gearshift_insist() {
  local left=20
  until "$@"; do
    left=$((left - 1))
    if [ "$left" = 0 ] || scontrol ping | grep -q UP; then return 1; fi
    sleep 30
  done
}
