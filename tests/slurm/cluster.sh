#!/usr/bin/env bash
# A real Slurm cluster on one machine, for the tests: slurmctld, two slurmd (n1, n2) and munge; GPUs that are scheduled
# and numbered but are links to /dev/null. Needs root and Debian's slurmctld, slurmd, slurm-client,
# slurm-wlm-basic-plugins and munge; for accounting also slurmdbd, slurm-wlm-mysql-plugin and mariadb-server.
#   cluster.sh install           get those packages
#   cluster.sh up [accounting]   start, with slurmdbd or without, and wait until a job has run on both nodes
#   cluster.sh node N            start slurmd of node N (1 or 2) again
#   cluster.sh down              stop what `up` started
set -euo pipefail
DIR=${CUTSEW_SLURM_DIR:-/tmp/cutsew-slurm}
CONF=$DIR/slurm.conf
PORT=17817
CPUS=2 MEMORY=64000 GPUS=2  # more memory than there may be: a job that is tried again asks for more each time

install() {
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
    slurmctld slurmd slurm-client slurm-wlm-basic-plugins munge slurmdbd slurm-wlm-mysql-plugin mariadb-server >/dev/null
}

# Snakemake's plugin drops SLURM_CONF from a job's environment, so the configuration has to stand in /etc/slurm.
link_configuration() {
  mkdir -p /etc/slurm
  for name in slurm gres "$@"; do
    file=/etc/slurm/$name.conf
    if [ -e "$file" ] && [ ! -L "$file" ]; then echo "$file exists: this machine has a Slurm of its own" >&2; exit 1; fi
    ln -sfn "$DIR/$name.conf" "$file"
  done
}

configure() {
  for gpu in $(seq 0 $((GPUS - 1))); do ln -sfn /dev/null "$DIR/gpu$gpu"; done
  cat >"$DIR/gres.conf" <<EOF
AutoDetect=off
Name=gpu Type=fake Flags=nvidia_gpu_env File=$DIR/gpu[0-$((GPUS - 1))]
EOF
  # MinJobAge: squeue has to know finished jobs for a while, since there is no accounting to ask.
  # OverMemoryKill: a job that uses more memory than it asked for is killed, as cgroups would.
  cat >"$CONF" <<EOF
ClusterName=cutsew
SlurmctldHost=$(hostname -s)(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$DIR/munge/socket
SlurmctldPort=$PORT
SlurmctldPidFile=$DIR/run/slurmctld.pid
SlurmdPidFile=$DIR/run/%n.pid
SlurmctldLogFile=$DIR/log/slurmctld.log
SlurmdLogFile=$DIR/log/%n.log
StateSaveLocation=$DIR/state
SlurmdSpoolDir=$DIR/spool/%n
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SchedulerParameters=sched_interval=2,batch_sched_delay=0
SlurmdParameters=config_overrides
MinJobAge=3600
KillWait=2
SlurmdTimeout=10
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/filetxt
JobCompLoc=$DIR/log/jobs.txt
GresTypes=gpu
NodeName=n1 NodeHostname=$(hostname -s) NodeAddr=127.0.0.1 Port=$((PORT + 1)) CPUs=$CPUS RealMemory=$MEMORY Gres=gpu:fake:$GPUS
NodeName=n2 NodeHostname=$(hostname -s) NodeAddr=127.0.0.1 Port=$((PORT + 2)) CPUs=$CPUS RealMemory=$MEMORY Gres=gpu:fake:$GPUS
PartitionName=main Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
EOF
}

# slurmdbd keeps its accounts in a MariaDB of its own, reached by a socket file and a local port.
account() {
  mariadb-install-db --no-defaults --user=root --datadir="$DIR/mysql" --auth-root-authentication-method=normal \
    --skip-test-db >"$DIR/log/mariadb-install.log" 2>&1
  setsid mariadbd --no-defaults --user=root --datadir="$DIR/mysql" --socket="$DIR/run/mysql.socket" \
    --pid-file="$DIR/run/mariadb.pid" --bind-address=127.0.0.1 --port=$((PORT + 50)) \
    --innodb-buffer-pool-size=64M --innodb-lock-wait-timeout=900 >"$DIR/log/mariadb.log" 2>&1 </dev/null &
  sql="mariadb --no-defaults --socket=$DIR/run/mysql.socket"
  for _ in $(seq 100); do $sql -e 'select 1' >/dev/null 2>&1 && break; sleep 0.1; done
  $sql -e "create database slurm_acct_db; create user slurm@'127.0.0.1' identified by 'slurm';
    grant all on slurm_acct_db.* to slurm@'127.0.0.1'; create user slurm@localhost identified by 'slurm';
    grant all on slurm_acct_db.* to slurm@localhost;"
  cat >"$DIR/slurmdbd.conf" <<EOF
AuthType=auth/munge
AuthInfo=socket=$DIR/munge/socket
DbdHost=localhost
DbdPort=$((PORT + 51))
SlurmUser=root
LogFile=$DIR/log/slurmdbd.log
PidFile=$DIR/run/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort=$((PORT + 50))
StorageUser=slurm
StoragePass=slurm
StorageLoc=slurm_acct_db
EOF
  chmod 600 "$DIR/slurmdbd.conf"
  sed -i "s#^AccountingStorageType=.*#AccountingStorageType=accounting_storage/slurmdbd\nAccountingStorageHost=localhost\n\
AccountingStoragePass=$DIR/munge/socket\nAccountingStoragePort=$((PORT + 51))#" "$CONF"
  slurmdbd
  for _ in $(seq 50); do timeout 5 sacctmgr -n show cluster >/dev/null 2>&1 && break; sleep 0.2; done
  sacctmgr -i add cluster cutsew >/dev/null
}

up() {
  down
  rm -rf "$DIR"
  mkdir -p "$DIR"/{run,log,state,spool/n1,spool/n2,munge}
  chmod 755 "$DIR"
  dd if=/dev/urandom of="$DIR/munge/key" bs=1024 count=1 status=none
  chmod 400 "$DIR/munge/key"
  munged --force --key-file="$DIR/munge/key" --socket="$DIR/munge/socket" --pid-file="$DIR/run/munged.pid" \
    --log-file="$DIR/munge/log" --seed-file="$DIR/munge/seed" 2>>"$DIR/munge/log"
  configure
  case ${1:-} in
    accounting) link_configuration slurmdbd; account ;;
    *) link_configuration ;;
  esac
  slurmctld -c
  for node in 1 2; do slurmd -N n$node; done
  for _ in $(seq 100); do
    [ "$(timeout 3 sinfo -h -N -t idle 2>/dev/null | wc -l)" = 2 ] && break
    sleep 0.3
  done
  timeout 60 srun --quiet -N 2 -n 2 --mem 10 true || { tail -n 5 "$DIR"/log/*.log >&2; exit 1; }
  sinfo -N -o '%N %T %c %m %G'
}

down() {
  for file in "$DIR"/run/*.pid; do
    [ -s "$file" ] || continue
    process=$(cat "$file")
    kill "$process" 2>/dev/null || continue
    for _ in $(seq 100); do kill -0 "$process" 2>/dev/null && sleep 0.1 || break; done
  done
  for name in slurm gres slurmdbd; do [ ! -L /etc/slurm/$name.conf ] || rm -f /etc/slurm/$name.conf; done
}

[ "$(id -u)" = 0 ] || { echo "needs root" >&2; exit 1; }
case ${1:-} in
  install) install ;;
  up) up "${2:-}" ;;
  node) slurmd -N "n$2" ;;
  down) down ;;
  *) sed -n '2,9p' "$0" >&2; exit 2 ;;
esac
