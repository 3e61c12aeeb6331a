#!/usr/bin/env bash
# The first process of the namespaces of one cluster; supervisor.py starts it.
#
# It keeps the programs of the node running: one that ends is started again, except while the file
# stopped/NAME exists. All that it starts ends with it, because it is the init of a PID namespace.
set -u
cd "$1"
until [ -e node.env ]; do sleep 0.05; done
. ./node.env
export PATH="$PWD/bin:$PATH"

# What these programs keep at fixed places of a machine is private here, and gone with the mount
# namespace. So a pod can have no hostPath below these folders; all others are the machine's own.
for folder in /run /var/lib/cni /var/lib/kubelet /var/log/containers; do
    mkdir -p "$folder"
    mount -t tmpfs tmpfs "$folder"
done
# Sockets below it need a short path; the data does not belong into memory.
mount --bind kubelet /var/lib/kubelet

# The kubelet wants these values and would set them for the whole machine: it finds files that have them.
while read -r key value; do
    file=sysctl/${key//\//_}
    echo "$value" >"$file"
    mount --bind "$file" "/proc/sys/$key"
done <<END
vm/overcommit_memory 1
vm/panic_on_oom 0
kernel/panic 10
kernel/panic_on_oops 1
kernel/keys/root_maxkeys 1000000
kernel/keys/root_maxbytes 25000000
END

# One cgroup of its own in every hierarchy of version 1; the programs are in its child "programs",
# pods in "kubepods" beside it.
for hierarchy in /sys/fs/cgroup/*; do
    [ -e "$hierarchy/cgroup.procs" ] || continue
    own=$hierarchy/$CGROUP
    mkdir -p "$own/programs"
    if [ -e "$hierarchy/cpuset.cpus" ]; then
        for each in "$own" "$own/programs"; do
            cat "$hierarchy/cpuset.cpus" >"$each/cpuset.cpus"
            cat "$hierarchy/cpuset.mems" >"$each/cpuset.mems"
        done
    fi
    echo 0 >"$own/programs/cgroup.procs" || echo "the cgroup $own can't be joined"
done

ip addr add "$NODE_ADDRESS/30" dev eth0
ip link set eth0 up
ip link set lo up
# Traffic of the node to services has a route before kube-proxy rewrites its target.
ip route add "$SERVICE_NETWORK" dev eth0

keep() { # PROGRAM ARGUMENT...
    local name=$1
    while :; do
        [ -e "stopped/$name" ] || "$@" >>"log/$name.log" 2>&1
        sleep 0.2
    done &
}

etcd_client=http://127.0.0.1:2379 etcd_peer=http://127.0.0.1:2380
keep containerd --config containerd.toml
keep etcd --name node --data-dir etcd --unsafe-no-fsync --initial-cluster "node=$etcd_peer" \
    --listen-client-urls $etcd_client --advertise-client-urls $etcd_client \
    --listen-peer-urls $etcd_peer --initial-advertise-peer-urls $etcd_peer
# Tests wait for these: pods of a lost node are given up after 20 + 30 s, not 50 + 300 s, and claims are
# bound within 1 s, not 15 s.
keep kube-apiserver --etcd-servers=$etcd_client \
    --bind-address="$NODE_ADDRESS" --advertise-address="$NODE_ADDRESS" --secure-port=6443 \
    --client-ca-file=pki/ca.crt --tls-cert-file=pki/apiserver.crt --tls-private-key-file=pki/apiserver.key \
    --service-account-issuer=https://kubernetes.default.svc \
    --service-account-key-file=pki/accounts.pub --service-account-signing-key-file=pki/accounts.key \
    --service-cluster-ip-range="$SERVICE_NETWORK" --allow-privileged=true \
    --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction \
    --default-not-ready-toleration-seconds=30 --default-unreachable-toleration-seconds=30 \
    --kubelet-client-certificate=pki/kubelet-client.crt --kubelet-client-key=pki/kubelet-client.key \
    --kubelet-certificate-authority=pki/ca.crt --kubelet-preferred-address-types=InternalIP

(
    until ctr version >/dev/null 2>&1; do sleep 0.1; done
    while read -r image; do
        ctr --namespace k8s.io images import "$image" >>log/images.log 2>&1 || exit
    done <images
    touch images-imported
) &

until [ -e api-answers ]; do sleep 0.1; done
controllers=pki/controllers.kubeconfig
keep kube-controller-manager --kubeconfig=$controllers --bind-address=127.0.0.1 --leader-elect=false \
    --authentication-kubeconfig=$controllers --authorization-kubeconfig=$controllers \
    --service-account-private-key-file=pki/accounts.key --use-service-account-credentials=true \
    --root-ca-file=pki/ca.crt --cluster-signing-cert-file=pki/ca.crt --cluster-signing-key-file=pki/ca.key \
    --flex-volume-plugin-dir="$PWD/plugins" --node-monitor-grace-period=20s --node-monitor-period=2s \
    --pvclaimbinder-sync-period=1s
scheduler=pki/scheduler.kubeconfig
keep kube-scheduler --kubeconfig=$scheduler --bind-address=127.0.0.1 --leader-elect=false \
    --authentication-kubeconfig=$scheduler --authorization-kubeconfig=$scheduler
keep kubelet --config=kubelet.json --kubeconfig=pki/node.kubeconfig \
    --hostname-override="$NODE" --node-ip="$NODE_ADDRESS"
keep kube-proxy --config=kube-proxy.json
# Pods are told to ask the node for names.
keep coredns -conf Corefile

while :; do
    wait -n || true
    sleep 1
done
