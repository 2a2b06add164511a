#!/usr/bin/env bash
# Start a SLURM with one node on this machine, for tests: no systemd, no cgroups, no database.
#
#   eval "$(scripts/slurm_up.sh DIR)"     keeps all state in DIR and prints the variables to export
#   scripts/slurm_down.sh DIR             stops it
#
# It needs root, and installs missing packages on Debian and Ubuntu. Exit code 77: SLURM cannot be
# started on this machine, and the last line says why. A second start finds the running SLURM.
set -euo pipefail

say() { echo "slurm_up: $*" >&2; }
cannot() { say "$*"; exit 77; }

[ $# -eq 1 ] || { say "usage: slurm_up.sh DIR"; exit 2; }
[ "$(id -u)" -eq 0 ] || cannot "root is needed, because slurmd starts jobs as their users"
export PATH=$PATH:/usr/sbin:/sbin
programs="munged munge slurmctld slurmd sbatch srun scontrol"
missing() { for program in $programs; do command -v "$program" > /dev/null || return 0; done; return 1; }
if missing; then
    command -v apt-get > /dev/null || cannot "slurmctld, slurmd or munged is missing, and there is no apt-get"
    export DEBIAN_FRONTEND=noninteractive
    install="apt-get install --yes --no-install-recommends slurm-wlm slurm-client slurmctld slurmd munge"
    # The local package lists may be older than the archive, so try again after an update.
    $install > /dev/null 2>&1 || { apt-get update > /dev/null 2>&1 && $install > /dev/null 2>&1; } ||
        cannot "apt-get cannot install slurm-wlm and munge (no network?)"
    missing && cannot "slurm-wlm and munge are installed, but one of these programs is missing: $programs"
fi

here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
dir=$(cd "$1" && pwd)
host=$(uname -n | cut -d. -f1)
export SLURM_CONF=$dir/slurm.conf
exports="export SLURM_CONF='$SLURM_CONF' PATH=\"\$PATH:/usr/sbin:/sbin\""
# Remove the variables of a SLURM job in which this script may itself run.
for name in $(compgen -e | grep -E '^(SLURM|SLURMD|SRUN|SBATCH)_' | grep -v '^SLURM_CONF$'); do
    unset "$name"
done

# Check this first: without a controller, sinfo would try to connect for ten seconds.
controller=/proc/$(cat "$dir/slurmctld.pid" 2> /dev/null || true)/environ
if grep -qzxF "SLURM_CONF=$SLURM_CONF" "$controller" 2> /dev/null && grep -q "^NodeName=$host " "$SLURM_CONF" &&
    sinfo --noheader --format=%T 2> /dev/null | grep -qE '^(idle|mixed|allocated)$'; then
    say "it is already running"
    echo "$exports"
    exit 0
fi
"$here/slurm_down.sh" "$dir" # clean up after a failed start, also one on another machine

free_port() {
    local port
    while port=$((20000 + RANDOM % 10000)); do
        (exec 3<> "/dev/tcp/127.0.0.1/$port") 2> /dev/null || { echo "$port"; return; }
    done
}

mkdir -p "$dir"/{state,spool,log}
chmod 755 "$dir" # munged requires that nobody else can write to it
dd if=/dev/urandom of="$dir/munge.key" bs=128 count=1 status=none
chmod 600 "$dir/munge.key"
touch "$dir/gpu0" "$dir/gpu1" # plain files stand in for two GPUs
echo "NodeName=$host Name=gpu File=$dir/gpu[0-1]" > "$dir/gres.conf"
# config_overrides: the node claims more CPUs than it has, so that jobs run side by side.
cat > "$SLURM_CONF" << END
ClusterName=testbox
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$(free_port)
SlurmdPort=$(free_port)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$dir/munge.socket
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=batch_sched_delay=0,sched_interval=1,preempt_youngest_first
SlurmctldParameters=preempt_send_user_signal
SlurmdParameters=config_overrides
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
KillWait=8
InactiveLimit=0
GresTypes=gpu
ReturnToService=2
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/slurmd.pid
SlurmctldLogFile=$dir/log/slurmctld.log
SlurmdLogFile=$dir/log/slurmd.log
NodeName=$host NodeAddr=127.0.0.1 CPUs=8 Boards=1 SocketsPerBoard=1 CoresPerSocket=8 ThreadsPerCore=1 RealMemory=64000 Gres=gpu:2 State=UNKNOWN
PartitionName=debug Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=off
PartitionName=scavenge Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=requeue GraceTime=60
PartitionName=spot Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=requeue GraceTime=0
END

failed() {
    say "$1; its log ends with:"
    tail -n 5 "$dir/log/$2" >&2 || true
    "$here/slurm_down.sh" "$dir"
    exit 1
}

# Each daemon gets its own session, so that Ctrl-C does not reach it.
setsid munged --force --foreground --key-file="$dir/munge.key" --socket="$dir/munge.socket" \
    --seed-file="$dir/munge.seed" --pid-file="$dir/munged.pid" --log-file="$dir/log/munged.log" \
    < /dev/null > "$dir/log/munged.out" 2>&1 &
for _ in $(seq 100); do
    munge --socket="$dir/munge.socket" --no-input > /dev/null 2>&1 && break
    sleep 0.05
done
munge --socket="$dir/munge.socket" --no-input > /dev/null 2>&1 || failed "munged does not answer" munged.out
setsid slurmctld -D < /dev/null > "$dir/log/slurmctld.out" 2>&1 &
setsid slurmd -D < /dev/null > "$dir/log/slurmd.out" 2>&1 &
for _ in $(seq 120); do
    [ "$(sinfo --noheader --format=%T 2> /dev/null | sort -u)" = idle ] && break
    sleep 0.1
done
[ "$(sinfo --noheader --format=%T 2> /dev/null | sort -u)" = idle ] || failed "the node does not become idle" slurmd.out
sinfo --noheader --format="%P %T, %c CPUs, %G" >&2
echo "$exports"
