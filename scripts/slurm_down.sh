#!/usr/bin/env bash
# Stop the SLURM that slurm_up.sh started for DIR, with its jobs and nothing else, and remove its
# state from DIR. The logs stay in DIR/log.
set -euo pipefail

[ $# -eq 1 ] || { echo "usage: slurm_down.sh DIR" >&2; exit 2; }
dir=$(realpath --canonicalize-missing "$1")
export SLURM_CONF=$dir/slurm.conf PATH=$PATH:/usr/sbin:/sbin

# Find processes by the environment they were started with: a pid from a file may be reused.
pids() {
    local found
    for found in $(grep -lszxF "SLURM_CONF=$SLURM_CONF" /proc/[0-9]*/environ || true); do
        found=${found%/environ}
        [ "$(cat "$found/comm" 2> /dev/null || true)" = "$1" ] && echo "${found#/proc/}"
    done
    return 0
}
jobs() { timeout 5 squeue --noheader --format=%A 2> /dev/null || true; }
stop() {
    local pid=$1
    kill "$pid" 2> /dev/null || true
    for _ in $(seq 50); do
        # A zombie process still has a pid, but no longer an environment.
        grep -qsz . "/proc/$pid/environ" || return 0
        sleep 0.1
    done
    kill -KILL "$pid" 2> /dev/null || true
}

if [ -n "$(pids slurmctld)" ] && [ -n "$(pids slurmd)" ] && [ -n "$(jobs)" ]; then
    # shellcheck disable=SC2046  # each id is an argument
    timeout 5 scancel --quiet --full --signal=KILL $(jobs) 2> /dev/null || true
    # shellcheck disable=SC2046
    timeout 5 scancel --quiet $(jobs) 2> /dev/null || true
    for _ in $(seq 100); do
        [ -z "$(jobs)" ] && break
        sleep 0.1
    done
fi
for daemon in slurmd slurmctld munged slurmstepd; do
    for pid in $(pids "$daemon"); do stop "$pid"; done
done
[ -d "$dir" ] || exit 0
cd "$dir"
rm -rf state spool slurm.conf gres.conf gpu0 gpu1 munge.key munge.seed munge.socket* ./*.pid
