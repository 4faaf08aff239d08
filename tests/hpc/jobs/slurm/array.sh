#!/bin/bash

# Parameters
#SBATCH --array=0-2%2
#SBATCH --chdir=/runs/sweeps/lr/lr-20260102-030405-abcdef
#SBATCH --cpus-per-task=3
#SBATCH --error=/runs/sweeps/lr/lr-20260102-030405-abcdef/%a/submitit/%A_%a_0_log.err
#SBATCH --gpus-per-node=1
#SBATCH --job-name=lr-20260102-030405-abcdef
#SBATCH --mem=1536M
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --open-mode=append
#SBATCH --output=/runs/sweeps/lr/lr-20260102-030405-abcdef/%a/submitit/%A_%a_0_log.out
#SBATCH --partition=gpu
#SBATCH --requeue
#SBATCH --signal=USR2@90
#SBATCH --time=60

# setup
cd "$SLURM_ARRAY_TASK_ID" || exit 1
echo "lockgate: attempt $((${SLURM_RESTART_COUNT:-0} + 1)) starts" >&2

# command
export SUBMITIT_EXECUTOR=slurm
srun --unbuffered --output /runs/sweeps/lr/lr-20260102-030405-abcdef/%A_%a_%t_log.out --error /runs/sweeps/lr/lr-20260102-030405-abcdef/%A_%a_%t_log.err --cpus-per-task=3 --kill-on-bad-exit=1 --output=/runs/sweeps/lr/lr-20260102-030405-abcdef/%a/submitit/%A_%a_%t_log.out --error=/runs/sweeps/lr/lr-20260102-030405-abcdef/%a/submitit/%A_%a_%t_log.err /venv/bin/python -u -m submitit.core._submit /runs/sweeps/lr/lr-20260102-030405-abcdef


# teardown
code=$?
if decided=$(/venv/bin/python -m hpc.jobs.cause.attempt_end . "$((${SLURM_RESTART_COUNT:-0} + 1))" "$code"); then code=$decided; elif [ -e log/$((${SLURM_RESTART_COUNT:-0} + 1)).exit ]; then code=$(cat log/$((${SLURM_RESTART_COUNT:-0} + 1)).exit); fi
if [ "$code" -eq 75 ]; then
trap '' TERM
until answer=$(scontrol requeue "${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}${SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID}" 2>&1); do
echo "$answer" >&2
case "$answer" in *'nable to contact'*|*onnection*|*'imed out'*|*failure*|*'were transmitted'*|*'nexpected message'*) sleep 5 ;; *) break ;; esac
done
if [ -e nodes/exclude ]; then scontrol update "JobId=${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}${SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID}" "ExcNodeList=$(cat nodes/exclude)"; fi
fi
exit "$code"