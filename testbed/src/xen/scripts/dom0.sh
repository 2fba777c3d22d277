# What dom0's first program does: Xen's daemons, a bridge, and an agent for whoever has booted this.
fail() {
	echo "dom0: $*"
	sleep 1
	poweroff -f
}

mkdir -p /dev/pts /dev/shm
mount -t devpts pts /dev/pts
mount -t tmpfs run /run
mount -t tmpfs tmp /tmp
mount -t debugfs debugfs /sys/kernel/debug
mount -t tracefs tracefs /sys/kernel/tracing
mount -t xenfs xenfs /proc/xen || fail "this is no Xen"
mkdir -p /run/xen /run/lock /run/xenstored /var/lib/xen /var/lib/xenstored /var/log /share
ln -s /run /var/run
ln -s /run/lock /var/lock
mount -t 9p -o trans=virtio,version=9p2000.L,msize=524288 share /share || fail "no shared folder"
mkdir -p /share/console /share/log
ln -s /share/log /var/log/xen

xenstored || fail "xenstored does not start"
tries=0
until said=$(xenstore-read / 2>&1); do
	tries=$((tries + 1))
	[ $tries -lt 100 ] || fail "xenstored does not answer: $said"
	usleep 50000
done
xenstore-write /local/domain/0/name Domain-0
xen-init-dom0 >/dev/null || fail "xen-init-dom0 fails"
xenconsoled --log=guest --log-dir=/share/console || fail "xenconsoled does not start"

# NewReno: what other systems use by default may pace, and so measures something else.
echo reno >/proc/sys/net/ipv4/tcp_congestion_control
# An address that is checked for duplicates can't be used for a second.
echo 0 >/proc/sys/net/ipv6/conf/default/accept_dad
ip link set lo up
brctl addbr xenbr0
echo 0 >/sys/class/net/xenbr0/bridge/forward_delay
echo 0 >/sys/class/net/xenbr0/bridge/multicast_snooping
ip address add 10.77.0.1/24 dev xenbr0
ip address add fd77::1/64 dev xenbr0
ip link set xenbr0 up
if [ -e /sys/class/net/eth0 ]; then
	brctl addif xenbr0 eth0
	ip link set eth0 up
fi

for port in /sys/class/virtio-ports/*; do
	[ "$(cat "$port/name")" = agent ] && exec 3<>"/dev/${port##*/}"
done
echo ready >&3 || fail "no port for the agent"
# Each line is a command: its number, and how many seconds it may take. What it says goes into a file, so that what it leaves in the
# background holds nobody up.
while read -r number seconds <&3; do
	(
		exec 4>&3 3>&-
		timeout -s KILL "$seconds" sh "/share/agent/$number.sh" >"/share/agent/$number.out" 2>&1 </dev/null 4>&-
		echo "done $number status $?" >&4
	) &
done
fail "nobody speaks to the agent any more"
