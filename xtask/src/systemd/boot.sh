# A machine that Debian's systemd runs: this very system's files, under an overlay that is thrown away, in namespaces of its own
# (processes, mounts, network without any link out, names, control groups). Nothing of the system around it can be reached: its
# root is not there, /sys and /proc/sys are read-only but for what belongs to the network namespace, /dev holds what is listed
# here, and rights over the clock, modules and the audit are gone. It is started twice, as a node that was switched off.
# $1: an empty directory; $2, $3: the package, and a later one; $4: what is done in it; $5: where it says what; $6: a directory of
# control groups (version 2) of its own.
set -eu
base=$1 said=$5 cgroup=$6
mount --make-rprivate /
mount -t tmpfs tmpfs "$base"
mkdir "$base/upper" "$base/work" "$base/root"
# What is needed may lie on a file system that the overlay does not show.
mkdir "$base/upper/test"
cp "$2" "$base/upper/test/first.deb"
cp "$3" "$base/upper/test/second.deb"
cp "$4" "$base/upper/test/inside.sh"
: >"$base/upper/test/said"
mount -t overlay overlay -o "lowerdir=/,upperdir=$base/upper,workdir=$base/work" "$base/root"
cd "$base/root"
mount --bind "$said" test/said
ip link set lo up

# Of what this system would start, systemd starts the journal and nothing else.
for units in etc/systemd/system lib/systemd/system usr/lib/systemd/system; do
    [ -d "$units" ] || continue
    find "$units/" -mindepth 1 -maxdepth 1 -name '*.wants' ! -name sysinit.target.wants -exec rm -r {} +
    find "$units/" -mindepth 1 -maxdepth 1 -name '*.requires' -exec rm -r {} +
    find "$units/" -mindepth 2 -path '*/sysinit.target.wants/*' ! -name 'systemd-journald*' ! -name systemd-tmpfiles-setup.service -delete
done
rm -rf etc/rc?.d etc/cni/net.d usr/sbin/policy-rc.d var/lib/man-db/auto-update etc/systemd/system/switchd.service*
: >etc/fstab
# Without one it would be a first start, at which systemd enables whatever is installed.
echo 0123456789abcdef0123456789abcdef >etc/machine-id
mkdir -p etc/systemd/system/multi-user.target.wants
cat >etc/systemd/system/inside.service <<'UNIT'
[Unit]
Description=What is tried
After=multi-user.target
# Its exit status is the machine's.
SuccessAction=exit
FailureAction=exit
[Service]
Type=exec
ExecStart=/bin/sh -eu /test/inside.sh
StandardOutput=append:/test/said
StandardError=inherit
UNIT
ln -s ../inside.service etc/systemd/system/multi-user.target.wants/

start() {
    unshare --pid --fork --kill-child --mount sh -eu -s "$cgroup/$1" <<'MACHINE'
mkdir "$1"
# This shell, which becomes process 1: its group is the root of those that it will see.
echo 0 >"$1/cgroup.procs"
mount -t proc -o nosuid,nodev,noexec proc proc
mount --bind proc/sys proc/sys
mount --bind proc/sys/net proc/sys/net
mount -o remount,bind,ro proc/sys
mount -t sysfs -o ro,nosuid,nodev,noexec sysfs sys
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs tmpfs tmp
mount -t tmpfs -o mode=755 tmpfs dev
mkdir dev/net dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666,mode=0620 devpts dev/pts
mount -t tmpfs tmpfs dev/shm
ln -s pts/ptmx dev/ptmx
for device in null:1:3 zero:1:5 full:1:7 random:1:8 urandom:1:9 tty:5:0 net/tun:10:200; do
    mknod -m 666 "dev/${device%%:*}" c $(echo "${device#*:}" | tr : ' ')
done
# As systemd does on a machine that is no container, before it starts anything.
mount -t bpf -o nosuid,nodev,noexec,mode=700 bpf sys/fs/bpf
exec unshare --cgroup sh -eu -c '
mount -t cgroup2 -o nosuid,nodev,noexec cgroup2 sys/fs/cgroup
pivot_root . mnt
umount -l /mnt
gone=-sys_time,-sys_module,-sys_rawio,-syslog,-wake_alarm,-audit_control,-audit_read,-audit_write
exec env -i container=namespaces PATH=/usr/sbin:/usr/bin:/sbin:/bin setpriv --bounding-set "$gone" /lib/systemd/systemd'
MACHINE
}
start first
start second
