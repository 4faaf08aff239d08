#!/bin/bash

# Parameters
#SBATCH --chdir=/runs/flights-20260102-030405-abcdef
#SBATCH --cpus-per-task=3
#SBATCH --error=/runs/flights-20260102-030405-abcdef/submitit/%j_0_log.err
#SBATCH --gpus-per-node=1
#SBATCH --job-name=flights-20260102-030405-abcdef
#SBATCH --mem=1536M
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --open-mode=append
#SBATCH --output=/runs/flights-20260102-030405-abcdef/submitit/%j_0_log.out
#SBATCH --partition=gpu
#SBATCH --requeue
#SBATCH --signal=USR2@90
#SBATCH --time=60

# setup
echo "lockgate: attempt $((${SLURM_RESTART_COUNT:-0} + 1)) starts" >&2

# command
export SUBMITIT_EXECUTOR=slurm
srun --unbuffered --output /runs/flights-20260102-030405-abcdef/submitit/%j_%t_log.out --error /runs/flights-20260102-030405-abcdef/submitit/%j_%t_log.err --cpus-per-task=3 --kill-on-bad-exit=1 /venv/bin/python -u -m submitit.core._submit /runs/flights-20260102-030405-abcdef/submitit


# teardown
code=$?
if decided=$(/venv/bin/python -m hpc.jobs.cause.attempt_end /runs/flights-20260102-030405-abcdef "$((${SLURM_RESTART_COUNT:-0} + 1))" "$code"); then code=$decided; elif [ -e /runs/flights-20260102-030405-abcdef/log/$((${SLURM_RESTART_COUNT:-0} + 1)).exit ]; then code=$(cat /runs/flights-20260102-030405-abcdef/log/$((${SLURM_RESTART_COUNT:-0} + 1)).exit); fi
if [ "$code" -eq 75 ]; then
trap '' TERM
until answer=$(scontrol requeue "${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}${SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID}" 2>&1); do
echo "$answer" >&2
case "$answer" in *'nable to contact'*|*onnection*|*'imed out'*|*failure*|*'were transmitted'*|*'nexpected message'*) sleep 5 ;; *) break ;; esac
done
if [ -e /runs/flights-20260102-030405-abcdef/nodes/exclude ]; then scontrol update "JobId=${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}${SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID}" "ExcNodeList=$(cat /runs/flights-20260102-030405-abcdef/nodes/exclude)"; fi
fi
exit "$code"