# shellcheck shell=bash
# What your site needs: copy this to slurm/site.sh, take away the # where a line is for you, and
# type  . slurm/site.sh  once in the shell in which you type sbatch. Each job reads it again, on
# its nodes. GEARSHIFT_SITE names a file elsewhere. `launcher submit` reads it by itself.
# Write no password and no key here: jobs have the environment of your shell.

# ---- for sbatch, any SBATCH_* of  man sbatch; what you type on its command line goes before
# export SBATCH_ACCOUNT=myproject
# export SBATCH_PARTITION=gpu
# export SBATCH_QOS=normal
# export SBATCH_GPUS_PER_NODE=4
# export SBATCH_EXCLUSIVE=yes           # or  sbatch --cpus-per-task=N  and  --mem=0

# ---- for the job
# module purge
# module load cuda/12.4
# . "$HOME/venvs/gearshift/bin/activate"
# export GEARSHIFT_PYTHON=$HOME/venvs/gearshift/bin/python   # without: .venv/bin/python, or python
# export GEARSHIFT_CONTAINER="apptainer exec --nv $HOME/gearshift.sif"   # stands before Python
# export GEARSHIFT_CACHE=$HOME/scratch/gearshift   # a folder that all nodes share
# export HF_HUB_OFFLINE=1                          # where nodes have no way out

# The network between nodes, as  ip -br address  names it there.
# export NCCL_SOCKET_IFNAME=ib0
# export GLOO_SOCKET_IFNAME=ib0
# export MASTER_ADDR=$(hostname -s)-ib   # asked on the first node; without: its address

# ---- how ranks are started
# export GEARSHIFT_RANKS_PER_NODE=4    # without: one a GPU, or one
# export GEARSHIFT_LAUNCH=torchrun     # without: srun, a task a rank
# export GEARSHIFT_MAX_RESTARTS=2      # of torchrun, in place
# export GEARSHIFT_MAX_CRASHES=3       # how often a training that crashed is begun again
