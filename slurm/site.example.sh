# shellcheck shell=bash
# Settings of your cluster. Copy this file to slurm/site.sh and uncomment the lines you need. Run
#  . slurm/site.sh  once in the shell in which you run sbatch. Each job sources the file again on
# its nodes. GEARSHIFT_SITE names a file elsewhere. `launcher submit` reads the file itself.
# Do not write passwords or keys here: jobs inherit the environment of your shell.

# ---- for sbatch: any SBATCH_* variable of  man sbatch; its command line overrides them
# export SBATCH_ACCOUNT=myproject
# export SBATCH_PARTITION=gpu
# export SBATCH_QOS=normal
# export SBATCH_GPUS_PER_NODE=4
# export SBATCH_EXCLUSIVE=yes           # or  sbatch --cpus-per-task=N  and  --mem=0

# ---- for the job
# module purge
# module load cuda/12.4
# . "$HOME/venvs/gearshift/bin/activate"
# export GEARSHIFT_PYTHON=$HOME/venvs/gearshift/bin/python   # default: .venv/bin/python, or python
# export GEARSHIFT_CONTAINER="apptainer exec --nv $HOME/gearshift.sif"   # prefix of Python
# export GEARSHIFT_CACHE=$HOME/scratch/gearshift   # a folder that all nodes share
# export HF_HUB_OFFLINE=1                          # for nodes without internet access

# The network interface between nodes, as  ip -br address  shows it on a node.
# export NCCL_SOCKET_IFNAME=ib0
# export GLOO_SOCKET_IFNAME=ib0
# export MASTER_ADDR=$(hostname -s)-ib   # evaluated on the first node; default: its address

# ---- how ranks are started
# export GEARSHIFT_RANKS_PER_NODE=4    # default: one per GPU, or one
# export GEARSHIFT_LAUNCH=torchrun     # default: srun, one task per rank
# export GEARSHIFT_MAX_RESTARTS=2      # restarts by torchrun within a job
# export GEARSHIFT_MAX_CRASHES=3       # restarts of a crashed job
