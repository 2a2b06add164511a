#!/usr/bin/env bash
# Stop the SLURM that slurm_up.sh started with this DIR, its jobs, and nothing else; remove DIR's
# state. Logs stay in DIR/log.
set -euo pipefail

[ $# -eq 1 ] || { echo "usage: slurm_down.sh DIR" >&2; exit 2; }
dir=$(realpath --canonicalize-missing "$1")
export SLURM_CONF=$dir/slurm.conf PATH=$PATH:/usr/sbin:/sbin

# By what they were started with: a pid in a file may be another process's by now.
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
        # One that nobody has waited for still has an id, and no environment any more.
        grep -qsz . "/proc/$pid/environ" || return 0
        sleep 0.1
    done
    kill -KILL "$pid" 2> /dev/null || true
}

if [ -n "$(pids slurmctld)" ] && [ -n "$(pids slurmd)" ] && [ -n "$(jobs)" ]; then
    # shellcheck disable=SC2046  # one argument each
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
