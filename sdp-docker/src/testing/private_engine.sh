# Holds the namespaces of a private engine, and starts and stops the engine in them as its input says.
# It is the first process of a process namespace: when it ends, everything in there does. Its input
# ends with whoever started it, however that came about.
# usage: private_engine.sh DIR CGROUP
set -u
# What another engine and containerd keep in /run is not to be met here.
mount -t tmpfs tmpfs /run && ip link set lo up || exit 1
echo ready
while read -r order; do
    case $order in
        start)
            dockerd --host "unix://$1/docker.sock" --data-root "$1/data" --exec-root "$1/exec" \
                --pidfile "$1/dockerd.pid" --cgroup-parent "/$2" >>"$1/dockerd.log" 2>&1 </dev/null &
            engine=$!
            echo started
            ;;
        TERM | KILL)
            kill -s "$order" "$engine"
            wait "$engine" 2>/dev/null
            echo stopped
            ;;
    esac
done
