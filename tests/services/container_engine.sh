#!/usr/bin/env bash
# The first process of the namespaces of one container engine; container_engine.py starts it.
#
# Network, mounts, processes and cgroups of the engine are its own, and gone with this process. It keeps
# the engine running: one that ends is started again, except while the file "stopped" exists.
set -u
cd "$1"

# The engine sees its cgroup as the root of each hierarchy of version 1, and makes those of containers in it.
if [ "${2-}" != inside ]; then
    for hierarchy in /sys/fs/cgroup/*/; do
        [ -e "$hierarchy/cgroup.procs" ] || continue
        own=$hierarchy/$CGROUP
        mkdir -p "$own"
        if [ -e "$hierarchy/cpuset.cpus" ]; then
            cat "$hierarchy/cpuset.cpus" >"$own/cpuset.cpus"
            cat "$hierarchy/cpuset.mems" >"$own/cpuset.mems"
        fi
        echo 0 >"$own/cgroup.procs" || exit
    done
    exec unshare --cgroup bash "$0" "$1" inside
fi
for hierarchy in /sys/fs/cgroup/*/; do
    [ ! -d "$hierarchy/$CGROUP" ] || mount --bind "$hierarchy/$CGROUP" "$hierarchy" || exit
done

# What engines keep at fixed places of a machine.
for folder in /run /var/lib/cni /var/lib/containers; do
    mkdir -p "$folder"
    mount -t tmpfs tmpfs "$folder" || exit
done
ip link set lo up

if [ -e registry.yml ]; then
    docker-registry serve registry.yml >>registry.log 2>&1 &
fi
mapfile -t command <command
while :; do
    if [ ! -e stopped ]; then
        rm -f /run/docker.pid
        "${command[@]}"
    fi
    sleep 0.2
done
