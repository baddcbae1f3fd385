# shellcheck shell=bash disable=SC2034 # next.sh reads what is set here
# The functions of all job files. A job file sources this and calls gearshift_job, _stages or
# _sweep.
#
# A run may take several Slurm jobs and requeues. GEARSHIFT_JOB is the id of its first Slurm job;
# GEARSHIFT_GENERATION counts requeues and successor jobs. See docs/slurm.md.
set -uo pipefail # no -e: every exit code is handled where it occurs

# First, because USR1 without a trap ends a shell. The shell that Slurm signals only waits: bash 5.2
# can lose a trap, or the current command, if a signal arrives within $(...).
gearshift_worker='' gearshift_warned='' gearshift_ended=''
trap 'gearshift_warned=1; gearshift_warn' USR1
trap 'gearshift_ended=1; gearshift_end' TERM

# gearshift_listen COMMAND...: run COMMAND in a subshell, and forward the signals by which Slurm
# warns of the time limit or ends the job. Exits the shell.
gearshift_listen() {
  (trap '' USR1 && "$@") &
  gearshift_worker=$!
  # Signals that arrived before the worker started.
  [ -z "$gearshift_warned" ] || gearshift_warn
  [ -z "$gearshift_ended" ] || gearshift_end
  # Each trap interrupts wait, which then returns another code.
  while
    wait "$gearshift_worker"
    kill -0 "$gearshift_worker" 2>/dev/null
  do :; done
  [ -z "${gearshift_warner:-}" ] || kill "$gearshift_warner"
  wait "$gearshift_worker"
  exit
}

# Repeat the signal until the job ends: the worker handles it only while ranks run, and srun loses a
# signal while it starts tasks. The first sleep lets the worker install its trap.
gearshift_warn() {
  [ -n "$gearshift_worker" ] && [ -z "${gearshift_warner:-}" ] || return 0
  while sleep 1 && kill -USR1 "$gearshift_worker"; do sleep 4; done >/dev/null 2>&1 &
  gearshift_warner=$!
}

gearshift_end() { [ -z "$gearshift_worker" ] || kill -TERM "$gearshift_worker" 2>/dev/null; }

gearshift_arguments=("$@") # of the job file
gearshift_next=''          # the job that depends on this run
gearshift_carried=()       # variables for a successor job
# An array element by array id and index: its own id may be that of the whole array, and a command
# with that id would apply to all elements.
gearshift_id=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID-}}
gearshift_id=${gearshift_id:-${SLURM_JOB_ID:?gearshift: run this with sbatch}}

gearshift_folder=${BASH_SOURCE[0]%/*}
[ "$gearshift_folder" != "${BASH_SOURCE[0]}" ] || gearshift_folder=.
# shellcheck source-path=SCRIPTDIR source=next.sh
. "$gearshift_folder/next.sh" || exit 2

gearshift_say() { printf 'gearshift: %s\n' "$*" >&2; }

# Read the record of this job from Slurm.
gearshift_query() { gearshift_record=$(scontrol show job -o "$gearshift_id"); }

# gearshift_field KEY: the value of KEY in the record of this job.
gearshift_field() { sed -n "s|.* $1=\([^ ]*\).*|\1|p" <<<"$gearshift_record"; }

# ---------------------------------------------------------------- called by job files

# gearshift_job ARGUMENT...: run `python -m launcher ARGUMENT...` until the run is complete, fails,
# or continues in another generation. Exits the shell.
gearshift_job() { gearshift_listen gearshift_train "$@"; }

# gearshift_stages ARGUMENT...: train the first of $GEARSHIFT_STAGES and submit a job for the next.
# By default these are the stages that the program trains with these arguments.
gearshift_stages() { gearshift_listen gearshift_train_stage "$@"; }

# gearshift_sweep FILE ARGUMENT...: train with these arguments and those of the element's line.
gearshift_sweep() { gearshift_listen gearshift_train_element "$@"; }

gearshift_train() {
  local published outcome=''
  gearshift_begin
  gearshift_choose_out "$@"
  gearshift_make_folder
  gearshift_measure
  gearshift_find_master
  gearshift_choose_command
  published=$gearshift_out/slurm/outcome.$GEARSHIFT_JOB.$GEARSHIFT_GENERATION
  trap 'gearshift_ended=1' TERM
  # In the background, because traps do not run during a foreground command. USR1 is still ignored:
  # it would end srun before srun forwards signals.
  "${gearshift_command[@]}" ${gearshift_rest[@]+"${gearshift_rest[@]}"} --out "$gearshift_out" &
  gearshift_ranks=$!
  trap 'kill -USR1 "$gearshift_ranks" 2>/dev/null' USR1
  # The exit code is not used: it may be that of killed ranks.
  while
    wait "$gearshift_ranks"
    kill -0 "$gearshift_ranks" 2>/dev/null
  do :; done
  trap '' USR1
  trap - TERM
  [ ! -e "$published" ] || read -r outcome _ <"$published"
  gearshift_conclude "$outcome"
}

gearshift_train_stage() {
  local stages stage number=0 before='' folder
  gearshift_begin
  gearshift_choose_out "$@"
  gearshift_choose_python
  [ -n "${GEARSHIFT_STAGES:-}" ] || GEARSHIFT_STAGES=$(PYTHONPATH=$gearshift_path \
    "${gearshift_python[@]}" -m launcher explain stages --mode staged \
    ${gearshift_rest[@]+"${gearshift_rest[@]}"} |
    sed -n 's/^stage [0-9]* of [0-9]*: \([^,]*\).*/\1/p' | tr '\n' ' ') || exit 2
  export GEARSHIFT_STAGES
  [ -n "$GEARSHIFT_STAGES" ] || gearshift_train --mode staged "$@" # a single stage
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
    gearshift_say "stage ${stages[number + 1]} is job $gearshift_next, which depends on this one"
  fi
  gearshift_train ${gearshift_rest[@]+"${gearshift_rest[@]}"} --stage "$stage" \
    ${before:+--from "$before"} --out "$folder/$((number + 1))-$stage"
}

gearshift_train_element() {
  local file=${1:-} line=${SLURM_ARRAY_TASK_ID:-} more=()
  if [ ! -r "$file" ]; then
    gearshift_say "cannot read '$file' in $PWD; the first argument of a sweep is a file with one" \
      "line of arguments per element"
    exit 2
  fi
  if [ -z "$line" ] || [ "$line" -lt 1 ] || [ "$line" -gt "$(grep -c '' "$file")" ]; then
    gearshift_say "$file has lines 1 to $(grep -c '' "$file"), not '$line';" \
      "use  sbatch --array=1-$(grep -c '' "$file") ..."
    exit 2
  fi
  # xargs parses quotes as a shell does, without expansion.
  mapfile -t more < <(sed -n "${line}p" "$file" | xargs -r printf '%s\n')
  gearshift_train "${@:2}" ${more[@]+"${more[@]}"}
}

# ---------------------------------------------------------------- environment of the ranks

# Source the site file; set job and generation.
gearshift_begin() {
  [ -z "${gearshift_record:-}" ] || return 0
  gearshift_folder=$(cd "$gearshift_folder" && pwd -P)
  # Variables of another job in the environment are invalid here.
  unset MASTER_ADDR MASTER_PORT RANK WORLD_SIZE LOCAL_RANK LOCAL_WORLD_SIZE GROUP_RANK
  local site=${GEARSHIFT_SITE:-$gearshift_folder/site.sh}
  if [ -e "$site" ] || [ -n "${GEARSHIFT_SITE:-}" ]; then
    set +u # module systems and virtual environments need it off
    # shellcheck disable=SC1090
    . "$site" || gearshift_say "warning: the last command of $site failed with exit code $?"
    set -u
  fi
  gearshift_query || gearshift_record="JobId=$gearshift_id"
  # SLURM_RESTART_COUNT may leak from the submitting shell, so the record comes first.
  gearshift_restarts=$(gearshift_field Restarts)
  gearshift_restarts=${gearshift_restarts:-${SLURM_RESTART_COUNT:-0}}
  if [ -n "${GEARSHIFT_GENERATION_BASE:-}" ]; then # a successor job
    GEARSHIFT_GENERATION=$((GEARSHIFT_GENERATION_BASE + gearshift_restarts))
  else
    GEARSHIFT_JOB=$gearshift_id GEARSHIFT_GENERATION=$gearshift_restarts
  fi
  unset GEARSHIFT_GENERATION_BASE
  export GEARSHIFT_JOB GEARSHIFT_GENERATION PYTHONUNBUFFERED=1
  gearshift_say "job $gearshift_id on ${SLURM_JOB_NODELIST:-$(hostname)}," \
    "generation $GEARSHIFT_GENERATION of job $GEARSHIFT_JOB"
}

# gearshift_choose_out ARGUMENT...: set the run folder, and the arguments without --out.
gearshift_choose_out() {
  local argument is_out=''
  gearshift_rest=() gearshift_out=runs/$SLURM_JOB_NAME-$GEARSHIFT_JOB
  for argument; do
    if [ -n "$is_out" ]; then
      gearshift_out=$argument is_out=''
    elif [ "$argument" = --out ]; then
      is_out=1
    elif [ "${argument#--out=}" != "$argument" ]; then
      gearshift_out=${argument#--out=}
    else
      gearshift_rest+=("$argument")
    fi
  done
  gearshift_out=${gearshift_out%/}
}

gearshift_make_folder() {
  local above=$gearshift_out/slurm
  gearshift_made='' # the outermost folder that this job makes
  until [ -d "$above" ]; do
    gearshift_made=$above
    case $above in */*) above=${above%/*} above=${above:-/} ;; *) above=. ;; esac
  done
  if ! mkdir -p "$gearshift_out/slurm" || [ ! -w "$gearshift_out/slurm" ]; then
    gearshift_say "cannot write to the run folder $gearshift_out on $(hostname) in $PWD;" \
      "use  --out DIR  with a folder that all nodes share"
    exit 2
  fi
  [ -z "$gearshift_next" ] || echo "$gearshift_next" >"$gearshift_out/slurm/next"
}

# Ranks per node and CPUs per rank, from the allocation rather than the request.
gearshift_measure() {
  local gpus=${SLURM_GPUS_ON_NODE:-} one cpus=''
  # Older Slurm gives only the indices of the devices, "0,1,2,3".
  [ -n "$gpus" ] || gpus=$(printf %s "${SLURM_JOB_GPUS:-}" | tr , '\n' | grep -c .)
  gearshift_nodes=${SLURM_JOB_NUM_NODES:-1}
  gearshift_per_node=${GEARSHIFT_RANKS_PER_NODE:-$gpus}
  [ "$gearshift_per_node" -gt 0 ] || gearshift_per_node=1
  # Every rank connects to every other one; many systems limit open files to 1024.
  [ $((gearshift_nodes * gearshift_per_node)) -lt 256 ] || ulimit -Sn "$(ulimit -Hn)"
  # "16(x3),8": use the smallest node.
  for one in $(printf %s "${SLURM_JOB_CPUS_PER_NODE:-1}" | sed 's/([^)]*)//g; s/,/ /g'); do
    [ -n "$cpus" ] && [ "$cpus" -le "$one" ] || cpus=$one
  done
  gearshift_cpus=$((cpus / gearshift_per_node))
  if [ "$gearshift_cpus" = 0 ]; then
    gearshift_say "warning: $gearshift_per_node ranks share $cpus CPUs of a node;" \
      "request more with  sbatch --cpus-per-task=N"
  fi
}

# An address of the first node for the other nodes. Some nodes resolve their own name to 127.0.1.1.
gearshift_find_master() {
  local host one address
  host=$(scontrol show hostnames "${SLURM_JOB_NODELIST:-}" | head -n 1)
  host=${host:-$(hostname)}
  if [ -z "${MASTER_ADDR:-}" ]; then
    one=$(scontrol show node -o "$host" | sed -n 's/.* NodeAddr=\([^ ]*\).*/\1/p')
    # A numeric address saves each rank a lookup: thousands at once are slow.
    for address in $(getent ahostsv4 "$host" "$one" | cut -d ' ' -f 1) \
      $(hostname -I) $(getent ahosts "$host" | cut -d ' ' -f 1); do
      case $address in 127.* | ::1 | fe80:*) ;; *) break ;; esac
    done
    case ${address:-127} in
      127* | ::1 | fe80:*)
        address=127.0.0.1
        if [ "$gearshift_nodes" -gt 1 ]; then
          gearshift_say "no address of $host that other nodes can reach; set MASTER_ADDR in the" \
            "site file"
          exit 1
        fi
        ;;
    esac
    MASTER_ADDR=$address
  fi
  # Below the ephemeral ports. Each generation uses another port: ranks of an earlier one that Slurm
  # believes dead may still hold theirs.
  MASTER_PORT=${MASTER_PORT:-$((20000 + (SLURM_JOB_ID + 97 * GEARSHIFT_GENERATION) % 12000))}
  # Ranks sign with this secret what they write into their rendezvous.
  GEARSHIFT_RENDEZVOUS=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
  export MASTER_ADDR MASTER_PORT GEARSHIFT_RENDEZVOUS
}

# Python with the container's command before it, and the PYTHONPATH with which it uses the code of
# this clone, wherever sbatch was run.
gearshift_choose_python() {
  local python=${GEARSHIFT_PYTHON:-}
  read -ra gearshift_python <<<"${GEARSHIFT_CONTAINER:-}"
  if [ -z "$python" ]; then
    python=python
    [ ! -x .venv/bin/python ] || [ "${#gearshift_python[@]}" -gt 0 ] || python=.venv/bin/python
  fi
  gearshift_python+=("$python") gearshift_path=${PYTHONPATH:-}
  [ ! -e "$gearshift_folder/../pyproject.toml" ] ||
    gearshift_path=${gearshift_folder%/*}/src${PYTHONPATH:+:$PYTHONPATH}
}

# The command that starts the ranks; the arguments of the launcher follow it.
gearshift_choose_command() {
  local block=() given=() srun one
  gearshift_choose_python
  # Variables of the request would conflict with the options of srun below.
  for one in NTASKS NPROCS NTASKS_PER_NODE NTASKS_PER_GPU CPUS_PER_TASK TRES_PER_TASK \
    GPUS_PER_TASK; do
    given+=(-u "SLURM_$one")
  done
  given+=(OMP_NUM_THREADS="${OMP_NUM_THREADS:-$((gearshift_cpus ? gearshift_cpus : 1))}")
  given+=(PYTHONPATH="$gearshift_path")
  # ALL: in a job of  sbatch --export=NONE , srun would pass no variables to the ranks.
  srun=(env "${given[@]}" srun --kill-on-bad-exit=1 --export=ALL --nodes="$gearshift_nodes")
  [ "$gearshift_cpus" -gt 0 ] || srun+=(--overcommit)
  if [ "${GEARSHIFT_LAUNCH:-srun}" = torchrun ]; then
    one=$((gearshift_cpus ? gearshift_cpus * gearshift_per_node : 1))
    srun+=(--ntasks="$gearshift_nodes" --ntasks-per-node=1 --cpus-per-task="$one")
    gearshift_command=("${srun[@]}" bash "$gearshift_folder/node.sh" "$gearshift_nodes"
      "$gearshift_per_node" "${gearshift_python[@]}" --)
    return
  fi
  one=$((gearshift_cpus ? gearshift_cpus : 1))
  srun+=(--ntasks=$((gearshift_nodes * gearshift_per_node)))
  srun+=(--ntasks-per-node="$gearshift_per_node" --cpus-per-task="$one")
  # Block signals until Python has installed its handlers: imports take seconds. coreutils 8.32.
  ! env --block-signal=USR1 true 2>/dev/null ||
    block=(env --block-signal=USR1 --block-signal=TERM)
  gearshift_command=("${srun[@]}" ${block[@]+"${block[@]}"} "${gearshift_python[@]}" -m launcher)
}
