# shellcheck shell=bash disable=SC2034 # next.sh reads what is set here
# What all job files share. A job file sources this and calls gearshift_job, _stages or _sweep.
#
# One training may live through several Slurm jobs and requeues: GEARSHIFT_JOB is its name, the id
# of its first Slurm job, and GEARSHIFT_GENERATION counts its lives. docs/slurm.md tells the rest.
set -uo pipefail # no -e: every exit code is handled where it comes

# First of all, for USR1 without a trap ends a shell. The one that Slurm signals does no more than
# listen: bash 5.2 forgets a trap, or what it was about to do, where a signal comes within $(...).
gearshift_worker='' gearshift_warned='' gearshift_ended=''
trap 'gearshift_warned=1; gearshift_warn' USR1
trap 'gearshift_ended=1; gearshift_end' TERM

# gearshift_listen COMMAND...: carry it out in a shell below this one, which is told when Slurm
# warns of the end or ends the job. Ends the shell.
gearshift_listen() {
  (trap '' USR1 && "$@") &
  gearshift_worker=$!
  # What came while there was nobody to tell.
  [ -z "$gearshift_warned" ] || gearshift_warn
  [ -z "$gearshift_ended" ] || gearshift_end
  # Each trap ends a wait, with a code of its own.
  while
    wait "$gearshift_worker"
    kill -0 "$gearshift_worker" 2>/dev/null
  do :; done
  [ -z "${gearshift_warner:-}" ] || kill "$gearshift_warner"
  wait "$gearshift_worker"
  exit
}

# Again and again until all is over: the worker heeds it while there are ranks, and srun takes a
# signal and forgets it while its tasks are on their way. The moment before is for the first trap.
gearshift_warn() {
  [ -n "$gearshift_worker" ] && [ -z "${gearshift_warner:-}" ] || return 0
  while sleep 1 && kill -USR1 "$gearshift_worker"; do sleep 4; done >/dev/null 2>&1 &
  gearshift_warner=$!
}

gearshift_end() { [ -z "$gearshift_worker" ] || kill -TERM "$gearshift_worker" 2>/dev/null; }

gearshift_words=("$@") # of the job file
gearshift_next=''      # the job that waits for this training to be done
gearshift_carried=()   # variables that a job which goes on for this one is given
# An element of an array by both its numbers: its own id may be that of the whole array, and what
# is asked of that one is done to all elements.
gearshift_id=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID-}}
gearshift_id=${gearshift_id:-${SLURM_JOB_ID:?gearshift: sbatch is to run this}}

gearshift_folder=${BASH_SOURCE[0]%/*}
[ "$gearshift_folder" != "${BASH_SOURCE[0]}" ] || gearshift_folder=.
# shellcheck source-path=SCRIPTDIR source=next.sh
. "$gearshift_folder/next.sh" || exit 2

gearshift_say() { printf 'gearshift: %s\n' "$*" >&2; }

# Ask Slurm about this job.
gearshift_ask() { gearshift_record=$(scontrol show job -o "$gearshift_id"); }

# gearshift_told KEY: what Slurm says of this job under KEY.
gearshift_told() { sed -n "s|.* $1=\([^ ]*\).*|\1|p" <<<"$gearshift_record"; }

# ---------------------------------------------------------------- what a job file calls

# gearshift_job WORD...: train with these words of `python -m launcher`, until the training is
# done, has failed, or goes on in another life. Ends the shell.
gearshift_job() { gearshift_listen gearshift_train "$@"; }

# gearshift_stages WORD...: train the first of $GEARSHIFT_STAGES, and queue the next one behind it.
gearshift_stages() { gearshift_listen gearshift_train_stage "$@"; }

# gearshift_sweep FILE WORD...: train with the words and those of the file's line of this element.
gearshift_sweep() { gearshift_listen gearshift_train_element "$@"; }

gearshift_train() {
  local published word=''
  gearshift_begin
  gearshift_choose_out "$@"
  gearshift_make_folder
  gearshift_measure
  gearshift_find_master
  gearshift_choose_command
  published=$gearshift_out/slurm/outcome.$GEARSHIFT_JOB.$GEARSHIFT_GENERATION
  trap 'gearshift_ended=1' TERM
  # In the background, for no trap is run while a command is in the foreground. USR1 is still
  # ignored: srun would die of one that comes before it has begun to hand signals on.
  "${gearshift_command[@]}" ${gearshift_rest[@]+"${gearshift_rest[@]}"} --out "$gearshift_out" &
  gearshift_ranks=$!
  trap 'kill -USR1 "$gearshift_ranks" 2>/dev/null' USR1
  # The exit code tells nothing: it may be that of killed peers.
  while
    wait "$gearshift_ranks"
    kill -0 "$gearshift_ranks" 2>/dev/null
  do :; done
  trap '' USR1
  trap - TERM
  [ ! -e "$published" ] || read -r word _ <"$published"
  gearshift_conclude "$word"
}

gearshift_train_stage() {
  local stages stage number=0 before='' folder
  gearshift_begin
  gearshift_choose_out "$@"
  read -ra stages <<<"$GEARSHIFT_STAGES"
  stage=${GEARSHIFT_STAGE:-${stages[0]}}
  folder=${GEARSHIFT_STAGES_OUT:-$gearshift_out}
  unset GEARSHIFT_STAGE GEARSHIFT_STAGES_OUT
  until [ "${stages[number]}" = "$stage" ]; do
    before=$folder/$((number + 1))-${stages[number]}
    number=$((number + 1))
  done
  gearshift_carried=(GEARSHIFT_STAGE="$stage" GEARSHIFT_STAGES_OUT="$folder")
  if [ -n "${stages[number + 1]:-}" ] && [ "$GEARSHIFT_GENERATION" = 0 ]; then
    gearshift_submit --dependency="afterok:$gearshift_id" --kill-on-invalid-dep=yes -- \
      GEARSHIFT_STAGE="${stages[number + 1]}" GEARSHIFT_STAGES_OUT="$folder" || exit 1
    gearshift_next=$gearshift_submitted
    gearshift_say "stage ${stages[number + 1]} is job $gearshift_next, which waits for this one"
  fi
  gearshift_train ${gearshift_rest[@]+"${gearshift_rest[@]}"} --stage "$stage" \
    ${before:+--from "$before"} --out "$folder/$((number + 1))-$stage"
}

gearshift_train_element() {
  local file=${1:-} line=${SLURM_ARRAY_TASK_ID:-} more=()
  # Line 1 is of element 1, unless the array is said to begin with another one.
  [ -z "$line" ] || line=$((line + 1 - ${GEARSHIFT_SWEEP_FIRST:-1}))
  if [ ! -r "$file" ]; then
    gearshift_say "the first word of a sweep is a file with a line of words for each element," \
      "and '$file' cannot be read here, in $PWD"
    exit 2
  fi
  if [ -z "$line" ] || [ "$line" -lt 1 ] || [ "$line" -gt "$(grep -c '' "$file")" ]; then
    gearshift_say "$file has lines 1 to $(grep -c '' "$file"), and this is element '$line';" \
      "write  sbatch --array=1-$(grep -c '' "$file") ..."
    exit 2
  fi
  # xargs reads quotes as a shell does, and expands nothing.
  mapfile -t more < <(sed -n "${line}p" "$file" | xargs -r printf '%s\n')
  gearshift_train "${@:2}" ${more[@]+"${more[@]}"}
}

# ---------------------------------------------------------------- where and as what it runs

# The site's own settings, and which life of which training this is.
gearshift_begin() {
  [ -z "${gearshift_record:-}" ] || return 0
  gearshift_folder=$(cd "$gearshift_folder" && pwd -P)
  # What another job has left in the environment is of no use to this one.
  unset MASTER_ADDR MASTER_PORT RANK WORLD_SIZE LOCAL_RANK LOCAL_WORLD_SIZE GROUP_RANK
  local site=${GEARSHIFT_SITE:-$gearshift_folder/site.sh}
  if [ -e "$site" ] || [ -n "${GEARSHIFT_SITE:-}" ]; then
    set +u # modules and environments are not written for it
    # shellcheck disable=SC1090
    . "$site" || gearshift_say "the last command of $site ended with $?"
    set -u
  fi
  gearshift_ask || gearshift_record="JobId=$gearshift_id"
  # SLURM_RESTART_COUNT is unset in a first life, unless that of the submitting shell leaks.
  gearshift_restarts=$(gearshift_told Restarts)
  gearshift_restarts=${gearshift_restarts:-${SLURM_RESTART_COUNT:-0}}
  if [ -n "${GEARSHIFT_GENERATION_BASE:-}" ]; then # this goes on for a job that could not
    GEARSHIFT_GENERATION=$((GEARSHIFT_GENERATION_BASE + gearshift_restarts))
  else
    GEARSHIFT_JOB=$gearshift_id GEARSHIFT_GENERATION=$gearshift_restarts
  fi
  unset GEARSHIFT_GENERATION_BASE
  export GEARSHIFT_JOB GEARSHIFT_GENERATION PYTHONUNBUFFERED=1
  gearshift_say "job $gearshift_id on ${SLURM_JOB_NODELIST:-$(hostname)}," \
    "life $GEARSHIFT_GENERATION of training $GEARSHIFT_JOB"
}

# gearshift_choose_out WORD...: the run folder, and the words without it.
gearshift_choose_out() {
  local word is_out=''
  gearshift_rest=() gearshift_out=runs/$SLURM_JOB_NAME-$GEARSHIFT_JOB
  for word; do
    if [ -n "$is_out" ]; then
      gearshift_out=$word is_out=''
    elif [ "$word" = --out ]; then
      is_out=1
    elif [ "${word#--out=}" != "$word" ]; then
      gearshift_out=${word#--out=}
    else
      gearshift_rest+=("$word")
    fi
  done
  gearshift_out=${gearshift_out%/}
}

gearshift_make_folder() {
  local above=$gearshift_out/slurm
  gearshift_made='' # the outermost folder that was not there
  until [ -d "$above" ]; do
    gearshift_made=$above
    case $above in */*) above=${above%/*} above=${above:-/} ;; *) above=. ;; esac
  done
  if ! mkdir -p "$gearshift_out/slurm" || [ ! -w "$gearshift_out/slurm" ]; then
    gearshift_say "the run folder $gearshift_out may not be written to, on $(hostname) in $PWD;" \
      "write  --out DIR  with a folder that all nodes share"
    exit 2
  fi
  [ -z "$gearshift_next" ] || echo "$gearshift_next" >"$gearshift_out/slurm/next"
}

# Ranks of a node, and processors of a rank, from what the job was given and not what it asked for.
gearshift_measure() {
  local gpus=${SLURM_GPUS_ON_NODE:-} one cpus=''
  # Older Slurm tells only the numbers of the devices, "0,1,2,3".
  [ -n "$gpus" ] || gpus=$(printf %s "${SLURM_JOB_GPUS:-}" | tr , '\n' | grep -c .)
  gearshift_nodes=${SLURM_JOB_NUM_NODES:-1}
  gearshift_per_node=${GEARSHIFT_RANKS_PER_NODE:-$gpus}
  [ "$gearshift_per_node" -gt 0 ] || gearshift_per_node=1
  # All ranks connect to the first one, and each to all others: many systems allow 1024 files.
  [ $((gearshift_nodes * gearshift_per_node)) -lt 256 ] || ulimit -Sn "$(ulimit -Hn)"
  # "16(x3),8": the node with the fewest counts.
  for one in $(printf %s "${SLURM_JOB_CPUS_PER_NODE:-1}" | sed 's/([^)]*)//g; s/,/ /g'); do
    [ -n "$cpus" ] && [ "$cpus" -le "$one" ] || cpus=$one
  done
  gearshift_cpus=$((cpus / gearshift_per_node))
  if [ "$gearshift_cpus" = 0 ]; then
    gearshift_say "$gearshift_per_node ranks share $cpus processors of a node;" \
      "write  sbatch --cpus-per-task=N  for more"
  fi
}

# The address of the first node as the others see it. Some nodes call themselves 127.0.1.1.
gearshift_find_master() {
  local host one address
  host=$(scontrol show hostnames "${SLURM_JOB_NODELIST:-}" | head -n 1)
  host=${host:-$(hostname)}
  if [ -z "${MASTER_ADDR:-}" ]; then
    one=$(scontrol show node -o "$host" | sed -n 's/.* NodeAddr=\([^ ]*\).*/\1/p')
    # A number spares each rank the question: thousands of them at once are slow to be answered.
    for address in $(getent ahostsv4 "$host" "$one" | cut -d ' ' -f 1) \
      $(hostname -I) $(getent ahosts "$host" | cut -d ' ' -f 1); do
      case $address in 127.* | ::1 | fe80:*) ;; *) break ;; esac
    done
    case ${address:-127} in
      127* | ::1 | fe80:*)
        address=127.0.0.1
        if [ "$gearshift_nodes" -gt 1 ]; then
          gearshift_say "no address by which other nodes can reach $host; the site file may set" \
            "MASTER_ADDR"
          exit 1
        fi
        ;;
    esac
    MASTER_ADDR=$address
  fi
  # Below the ports that systems give away by themselves, and another one in each life: ranks of a
  # life that Slurm believes dead may still hold theirs.
  MASTER_PORT=${MASTER_PORT:-$((20000 + (SLURM_JOB_ID + 97 * GEARSHIFT_GENERATION) % 12000))}
  export MASTER_ADDR MASTER_PORT
}

# What starts the ranks; the words of the launcher come behind it.
gearshift_choose_command() {
  local python=${GEARSHIFT_PYTHON:-} container block=() given=() srun one
  read -ra container <<<"${GEARSHIFT_CONTAINER:-}"
  if [ -z "$python" ]; then
    python=python
    [ ! -x .venv/bin/python ] || [ "${#container[@]}" -gt 0 ] || python=.venv/bin/python
  fi
  # What the allocation was asked for would argue with what the ranks are given.
  for one in NTASKS NPROCS NTASKS_PER_NODE NTASKS_PER_GPU CPUS_PER_TASK TRES_PER_TASK \
    GPUS_PER_TASK; do
    given+=(-u "SLURM_$one")
  done
  given+=(OMP_NUM_THREADS="${OMP_NUM_THREADS:-$((gearshift_cpus ? gearshift_cpus : 1))}")
  # A clone's own code, wherever sbatch was typed.
  [ ! -e "$gearshift_folder/../pyproject.toml" ] ||
    given+=(PYTHONPATH="${gearshift_folder%/*}${PYTHONPATH:+:$PYTHONPATH}")
  # ALL, for srun in a job of  sbatch --export=NONE  would tell the ranks nothing.
  srun=(env "${given[@]}" srun --kill-on-bad-exit=1 --export=ALL --nodes="$gearshift_nodes")
  [ "$gearshift_cpus" -gt 0 ] || srun+=(--overcommit)
  if [ "${GEARSHIFT_LAUNCH:-srun}" = torchrun ]; then
    one=$((gearshift_cpus ? gearshift_cpus * gearshift_per_node : 1))
    srun+=(--ntasks="$gearshift_nodes" --ntasks-per-node=1 --cpus-per-task="$one")
    gearshift_command=("${srun[@]}" bash "$gearshift_folder/node.sh" "$gearshift_nodes"
      "$gearshift_per_node" ${container[@]+"${container[@]}"} "$python" --)
    return
  fi
  one=$((gearshift_cpus ? gearshift_cpus : 1))
  srun+=(--ntasks=$((gearshift_nodes * gearshift_per_node)))
  srun+=(--ntasks-per-node="$gearshift_per_node" --cpus-per-task="$one")
  # Signals wait until Python has its handlers: its imports take seconds. Since coreutils 8.32.
  ! env --block-signal=USR1 true 2>/dev/null ||
    block=(env --block-signal=USR1 --block-signal=TERM)
  gearshift_command=("${srun[@]}" ${block[@]+"${block[@]}"} ${container[@]+"${container[@]}"}
    "$python" -m launcher)
}
