# What an administrator does with the package, on this very system: the root file system, with an overlay that is thrown away, a
# network of its own, and a `systemctl` that notes what it is asked (no systemd runs here). $1: an empty directory; $2, $3: the
# package, and a later one.
set -eu
base=$1
mount --make-rprivate /
mount -t tmpfs tmpfs "$base"
mkdir "$base/upper" "$base/work" "$base/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$base/upper,workdir=$base/work" "$base/root"
mount -t proc proc "$base/root/proc"
mount -t sysfs sysfs "$base/root/sys"
mount --rbind /dev "$base/root/dev"
mount -t tmpfs tmpfs "$base/root/run"
mount -t tmpfs tmpfs "$base/root/tmp"
# The checkout may lie below what was just covered, or on a file system that the overlay does not show.
cp "$2" "$base/root/run/first.deb"
cp "$3" "$base/root/run/second.deb"
# Nobody asks here for an index of all the system's manual pages, which takes seconds each time.
rm -f "$base/root/var/lib/man-db/auto-update"
exec chroot "$base/root" /bin/sh -eu -s /run/first.deb /run/second.deb <<'INSIDE'
fail() { echo "the package: $*" >&2; exit 1; }
asked() { [ "$(cat /run/asked)" = "$1" ] || fail "systemctl was asked: $(cat /run/asked), and not: $1"; : >/run/asked; }
files() { find /usr /etc /opt /var -xdev \( -path /var/lib/dpkg -o -path /var/cache -o -path /var/log \) -prune -o -print | sort; }
export PATH=/run/fake:/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive
ip link set lo up
mkdir -p /run/systemd/system /run/fake
printf '#!/bin/sh\necho "$@" >>/run/asked\n' >/run/fake/systemctl
chmod +x /run/fake/systemctl
files >/run/before

dpkg --install "$1"
asked "daemon-reload
preset switchd.service
start switchd.service"
switchd --version; switch-ctl --version
zcat /usr/share/man/man1/switch-ctl.1.gz | grep -q 'switch-ctl' || fail "there is no manual page"
zcat /usr/share/man/man8/switchd.8.gz | grep -q 'state' || fail "there is no manual page of the daemon"
zcat /usr/share/man/man8/switch-cni.8.gz | grep -q 'CNI_NETNS' || fail "there is no manual page of the plugin"
[ -s /usr/share/man/man1/switch-ctl-port-add-tap.1.gz ] || fail "there is no manual page of a command"
for file in bash-completion/completions/switch-ctl zsh/vendor-completions/_switch-ctl fish/vendor_completions.d/switch-ctl.fish; do
    grep -q support-bundle "/usr/share/$file" || fail "there is no completion in $file"
done
echo '{"cniVersion": "1.1.0"}' | CNI_COMMAND=VERSION /usr/lib/cni/switch-cni | grep -q '"1.1.0"' || fail "the plugin does not answer"

# As the unit starts it, but for the shared bpffs.
mkdir -p /run/switchd /var/lib/switchd
switchd --socket /run/switchd/switchd.sock --state /var/lib/switchd/state 2>/run/log &
daemon=$!
for _ in $(seq 100); do [ -S /run/switchd/switchd.sock ] && break; sleep 0.1; done
switch-ctl status >/dev/null || fail "the daemon does not answer: $(cat /run/log)"
switch-ctl bridge add br0
switch-ctl port add host node --bridge br0 --address 10.66.0.1/24

dpkg --install "$2"
asked "daemon-reload
try-restart switchd.service"
kill -0 "$daemon" || fail "an upgrade ended the daemon by itself"
switch-ctl port list | grep -q node || fail "the command line of the new package does not speak to the daemon of the old one"

dpkg --remove switchd
asked "is-enabled --quiet switchd.service
disable --now switchd.service
daemon-reload"
wait "$daemon" || fail "the daemon did not end well: $(cat /run/log)"
ip link show switch0 2>/dev/null && fail "switch0 is left"
[ -s /var/lib/switchd/state ] || fail "removed is not purged: what was declared is lost"

dpkg --purge switchd
: >/run/asked
files >/run/after
diff /run/before /run/after >&2 || fail "files are left, or gone"
INSIDE
