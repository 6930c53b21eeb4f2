#!/usr/bin/env bash
# A Slurm cluster of several nodes on one machine, for tests of the launcher: each node is a set of namespaces with its
# own address, host name, /dev/shm and /tmp. Needs root and Debian's slurmctld slurmd slurm-client munge iproute2.
# Everything lies in STATE; nothing else on the machine changes but a bridge and the nodes' network namespaces.
#
#   slurm_cluster.sh up STATE NODES [FOLDER…]    FOLDERs below /tmp stay visible on the nodes, like a shared disk
#   slurm_cluster.sh crash STATE NUMBER          ends all processes of a node at once
#   slurm_cluster.sh boot STATE NUMBER           starts a node that crashed
#   slurm_cluster.sh enter STATE NUMBER COMMAND… runs a command on a node, beside Slurm
#   slurm_cluster.sh down STATE                  then: export SLURM_CONF=STATE/slurm.conf
set -euo pipefail

usage() {
  sed -n '2,10s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
  exit 2
}
(($# >= 2)) || usage
action=$1
state=$(realpath -m "$2")
# A network of this state's own, so that two runs do not meet.
id=$(($(cksum <<<"$state" | cut -d' ' -f1) % 250))
network=10.77.$id
bridge=medserl$id
host=$(hostname -s)
namespace() { echo "medserl$id-$1"; }

write_configuration() {
  local nodes=$1 number
  mkdir -p "$state"/{controller,log,run,spool,tmp}
  chmod 755 "$state"
  (umask 277 && head -c 1024 /dev/urandom >"$state/munge.key")
  {
    echo "127.0.0.1 localhost"
    echo "$network.254 $host"
    for number in $(seq "$nodes"); do echo "$network.$number node$number"; done
  } >"$state/hosts"
  echo "CgroupPlugin=cgroup/v1" >"$state/cgroup.conf"
  # One schedulable CPU per logical one, no accounting, no task plug-ins: nothing here measures a program.
  cat >"$state/slurm.conf" <<CONF
ClusterName=medserl$id
SlurmctldHost=$host($network.254)
SlurmUser=root
SlurmdUser=root
MailProg=/bin/true
AuthType=auth/munge
AuthInfo=socket=$state/run/munge.socket,cred_expire=5
SlurmctldPort=26817
SlurmdPort=26818
SlurmctldPidFile=$state/run/slurmctld.pid
SlurmdPidFile=$state/run/slurmd-%n.pid
SlurmctldLogFile=$state/log/slurmctld.log
SlurmdLogFile=$state/log/slurmd-%n.log
SlurmdSpoolDir=$state/spool/%n
StateSaveLocation=$state/controller
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
SlurmdParameters=config_overrides
ReturnToService=2
SlurmdTimeout=15
KillWait=10
PropagateResourceLimits=NONE
NodeName=node[1-$nodes] NodeAddr=$network.[1-$nodes] CPUs=4 RealMemory=16000 State=UNKNOWN
PartitionName=test Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=REQUEUE GraceTime=60
PartitionName=urgent Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
CONF
}

start_controller() {
  # --force: it wants folders that every user may enter, but a test's are private.
  munged --force --key-file="$state/munge.key" --socket="$state/run/munge.socket" --pid-file="$state/run/munged.pid" \
    --log-file="$state/log/munged.log" --seed-file="$state/run/munged.seed"
  ip link add "$bridge" type bridge
  ip addr add "$network.254/24" dev "$bridge"
  ip link set "$bridge" up
  SLURM_CONF=$state/slurm.conf slurmctld -c -f "$state/slurm.conf"
}

# Runs inside the node's namespaces: a /tmp of its own, in which the shared folders stay where they are.
# shellcheck disable=SC2016  # expands on the node
node_script='
state=$1 name=$2
shift 2
hostname "$name"
mount --bind "$state/hosts" /etc/hosts
mount -t tmpfs -o size=2g shm /dev/shm
private=$state/tmp/$name
for folder in "$state" "$@"; do
  if [[ $folder == /tmp/* ]]; then
    mkdir -p "$private/${folder#/tmp/}"
    mount --bind "$folder" "$private/${folder#/tmp/}"
  fi
done
mount --rbind "$private" /tmp
export SLURM_CONF=$state/slurm.conf
slurmd -D -f "$SLURM_CONF" &
wait
'

start_node() {
  local number=$1 name=node$1
  mkdir -p "$state/spool/$name" "$state/tmp/$name"
  chmod 1777 "$state/tmp/$name"
  make_network "$number"
  mapfile -t shared <"$state/shared"
  # Not `ip netns exec`, which hides /sys/fs/cgroup from slurmd. --kill-child ends the node with its first process.
  setsid nsenter --net="/run/netns/$(namespace "$number")" \
    unshare --uts --mount --pid --fork --kill-child --mount-proc --propagation private \
    bash -c "$node_script" node "$state" "$name" "${shared[@]}" </dev/null >>"$state/log/node-$name.log" 2>&1 &
  echo "$!" >"$state/run/node-$name.pid"
}

make_network() {
  local number=$1 space
  space=$(namespace "$number")
  if [[ -e /run/netns/$space ]]; then return; fi
  ip netns add "$space"
  ip link add "v$id-$number" type veth peer name eth0 netns "$space"
  ip link set "v$id-$number" master "$bridge" up
  ip -n "$space" link set lo up
  ip -n "$space" addr add "$network.$number/24" dev eth0
  ip -n "$space" link set eth0 up
}

# The first process of a node, as this machine numbers it.
first_process() { cat "/proc/$(cat "$state/run/node-node$1.pid")/task/$(cat "$state/run/node-node$1.pid")/children"; }

crash() {
  kill -KILL "$(cat "$state/run/node-node$1.pid")"
}

enter() {
  local number=$1
  shift
  exec nsenter --target="$(first_process "$number" | tr -d ' ')" --net --uts --mount --pid "$@"
}

up() {
  local nodes=$1 number
  shift
  write_configuration "$nodes"
  printf '%s\n' "$@" >"$state/shared"
  start_controller
  for number in $(seq "$nodes"); do start_node "$number"; done
  for _ in $(seq 150); do
    if [[ $(SLURM_CONF=$state/slurm.conf sinfo -h -N -p test -t idle -o %N 2>/dev/null | wc -l) == "$nodes" ]]; then return; fi
    sleep 0.2
  done
  echo "not all of the $nodes nodes came up within 30 s; see $state/log" >&2
  return 1
}

down() {
  local file number
  for file in "$state"/run/node-*.pid; do
    [[ -f $file ]] || continue
    kill -KILL "$(cat "$file")" 2>/dev/null || true
  done
  for file in "$state"/run/slurmctld.pid "$state"/run/munged.pid; do
    [[ -f $file ]] && kill "$(cat "$file")" 2>/dev/null || true
  done
  sleep 1
  for file in "$state"/run/node-*.pid; do
    number=${file##*/node-node}
    number=${number%.pid}
    if [[ -e /run/netns/$(namespace "$number") ]]; then ip netns del "$(namespace "$number")"; fi
  done
  if [[ -e /sys/class/net/$bridge ]]; then ip link del "$bridge"; fi
}

case $action in
  up)
    (($# >= 3)) || usage
    shift 2
    up "$@"
    ;;
  boot) start_node "$3" ;;
  crash) crash "$3" ;;
  enter)
    shift 2
    enter "$@"
    ;;
  down) down ;;
  *) usage ;;
esac
