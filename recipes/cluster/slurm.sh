#!/usr/bin/env bash
# Trains a recipe under Slurm, over as many time limits as it takes. From the checkout:
#   sbatch --nodes 2 recipes/cluster/slurm.sh recipes/shakespeare_char.yaml [options of lehr train]
# Two minutes before the limit Slurm sends SIGUSR1: Lehr saves and leaves with 75, and the job asks
# for its next turn, in which the same line continues. LEHR names another program than build/lehr.
#SBATCH --job-name=lehr
#SBATCH --ntasks-per-node=1
#SBATCH --time=04:00:00
#SBATCH --signal=USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=lehr-%j.log
set -u
if [ $# = 0 ]; then
  echo "usage: sbatch [options] slurm.sh RECIPE [options of lehr train]" >&2
  exit 2
fi
# one folder for all turns of the job
for attempt in 1 2 3; do
  srun --mpi=none --kill-on-bad-exit=1 "${LEHR:-build/lehr}" train "$@" --run "runs/slurm-$SLURM_JOB_ID"
  code=$?
  # a lost rank (6, or a signal's code) is tried again from the newest checkpoint; nothing else is
  if [ $code != 6 ] && [ $code -lt 128 ]; then break; fi
done
if [ $code = 75 ]; then scontrol requeue "$SLURM_JOB_ID"; fi
exit $code
