# What an administrator does on a node, with systemd as process 1: see boot.sh, which starts this at each of two starts.
export DEBIAN_FRONTEND=noninteractive SYSTEMD_PAGER= SYSTEMD_COLORS=0 HOME=/root
unit=switchd.service

say() { echo "$(cut -d ' ' -f 1 /proc/uptime) $*"; }
fail() {
    say "FAILED: $*"
    systemctl status --full --lines 0 $unit || true
    journalctl --no-pager --lines 60 --output short-monotonic || true
    exit 1
}
shown() { systemctl show --value --property "$1" $unit; }
has() { [ "$(shown "$1")" = "$2" ]; }
is() { has "$1" "$2" || fail "$1 is $(shown "$1"), and not $2"; }
# Waits for $2... to succeed, for $1 tenths of a second.
within() {
    tenths=$1
    shift
    until "$@"; do
        [ "$tenths" -gt 0 ] || return 1
        tenths=$((tenths - 1))
        sleep 0.1
    done
}
is_another() { [ "$(shown MainPID)" != 0 ] && [ "$(shown MainPID)" != "$1" ] && [ "$(shown ActiveState)" = active ]; }
in_pod() { pod=$1; shift; nsenter --net="/run/netns/$pod" "$@"; }
answers() { in_pod a ping -n -q -c 1 -W 2 10.66.0.3 >/dev/null; }
listens() { in_pod b cat /proc/net/tcp /proc/net/tcp6 | grep -q ':1B58 .* 0A '; }
has_come() { [ "$(wc -l </run/come)" -gt "$1" ]; }
# The one connection that began before all of this: what is sent from now on comes.
carries() {
    kill -0 "$sender" && kill -0 "$receiver" || fail "$1: the connection ended"
    # TCP doubles its pauses: after an outage of ten seconds it may wait as long.
    within 300 has_come $(($(cat /run/sent) + 3)) || fail "$1: the connection carries nothing any more"
    answers || fail "$1: a ping is lost"
}
# The daemon that had process number $2 was followed by another.
followed() {
    within 200 is_another "$2" || fail "$1: no daemon followed"
    carries "$1"
}

again() {
    say "started again: the service came by itself, with what was declared"
    is ActiveState active
    shown StatusText | grep -q '^1 of 3 ports up; a: the namespace ' || fail "its status: $(shown StatusText)"
    ip -4 -o address show switch0 | grep -q '10\.66\.0\.1/24' || fail "the node's own port has not come back"
    [ -z "$(systemctl --failed --quiet)" ] || fail "a unit failed: $(systemctl --failed)"

    say "removed: the daemon has ended, and systemd knows nothing of it"
    dpkg --remove switchd
    is LoadState not-found
    is ActiveState inactive
    [ -z "$(pidof switchd)" ] || fail "a daemon is left"
    ! ip link show switch0 2>/dev/null || fail "switch0 is left"
    [ -s /var/lib/switchd/state ] || fail "removed is not purged: what was declared is lost"

    say "installed again: as it was"
    dpkg --install /test/second.deb
    is ActiveState active
    is UnitFileState enabled
    switch-ctl port list | grep -q '^ node *up ' || fail "what was declared is not there: $(switch-ctl port list)"
    systemctl disable $unit
    dpkg --remove switchd
    dpkg --install /test/second.deb
    is ActiveState inactive
    is UnitFileState disabled

    say "purged: nothing is left"
    dpkg --purge switchd
    left=$(ls -d /usr/sbin/switchd /usr/bin/switch-ctl /usr/lib/cni/switch-cni /usr/lib/systemd/system/switchd.service /usr/share/doc/switchd \
        /etc/systemd/system/*/switchd.service /var/lib/switchd /var/lib/switch-cni /run/switchd /sys/fs/bpf/switchd 2>/dev/null || true)
    [ -z "$left" ] || fail "it left $left"

    say "installed by switch-ctl install, from where the programs were built"
    mkdir -p /etc/cni/net.d
    /test/programs/switch-ctl install --from /test/programs
    is ActiveState active
    is UnitFileState enabled
    is FragmentPath /etc/systemd/system/switchd.service
    within 300 has StatusText "1 of 1 ports up" || fail "its status: $(shown StatusText)"
    ip -4 -o address show switch0 | grep -q '10\.88\.0\.1' || fail "the node has no port among the containers"
    /test/programs/switch-ctl uninstall
    is LoadState not-found
    [ -z "$(pidof switchd)" ] || fail "a daemon is left"
    say "all of it"
}
if [ -e /test/began ]; then
    again
    exit
fi
touch /test/began

say "installed: started, ready, and enabled; $(systemctl --version | head -n 1)"
dpkg --install /test/first.deb
mkdir /test/programs
cp /usr/sbin/switchd /usr/bin/switch-ctl /usr/lib/cni/switch-cni /test/programs/
# Ready is what `start` waits for: nothing is tried twice here.
switch-ctl status >/dev/null || fail "it is ready, and does not answer"
is ActiveState active
is Type notify
is UnitFileState enabled
is StatusText "0 of 0 ports up"
systemctl status $unit
journalctl --quiet --unit $unit --grep 'serving' >/dev/null || fail "the journal has nothing of what it says"
[ "$(stat -c %a /var/lib/switchd /run/switchd/switchd.sock)" = "700
600" ] || fail "who may read: $(stat -c '%a %n' /var/lib/switchd /run/switchd/*)"

switch-ctl support-bundle - | tar -xzO --wildcards '*/daemon/log' | grep -q 'serving' || fail "the support bundle has no log"

say "what the unit restricts is restricted"
daemon=$(shown MainPID)
keeper=$(grep -vx "$daemon" /sys/fs/cgroup/system.slice/$unit/cgroup.procs)
of() { awk -v word="$2:" '$1 == word { print $2 }' "/proc/$1/status"; }
expect() { [ "$(of "$1" "$2")" = "$3" ] || fail "$2 of $(cat "/proc/$1/comm"), $4, is $(of "$1" "$2"), and not $3"; }
# NET_ADMIN NET_RAW IPC_LOCK SYS_ADMIN BPF; the keeper was started with the unit's set, of which it uses three.
[ "$(cat "/proc/$keeper/comm")" = switchd-keeper ] || fail "beside the daemon there is $(cat "/proc/$keeper/comm")"
for set in CapBnd CapPrm CapEff; do expect "$daemon" $set 0000008000207000 "the daemon"; done
expect "$keeper" CapBnd 0000008000a87104 "the keeper"
expect "$keeper" CapEff 0000000000280004 "the keeper"
for process in $daemon $keeper; do
    expect "$process" NoNewPrivs 1 "one of two"
    expect "$process" Seccomp 2 "one of two"
    expect "$process" Umask 0077 "one of two"
    grep -q '^Max core file size  *0  *0 ' "/proc/$process/limits" || fail "core files are not off"
done
# One at least for each restriction of systemd's, and the daemon's own.
[ "$(of "$keeper" Seccomp_filters)" -ge 6 ] || fail "systemd's filters are not in force"
[ "$(of "$daemon" Seccomp_filters)" -gt "$(of "$keeper" Seccomp_filters)" ] || fail "the daemon has no filter of its own"

# A program under the unit's restrictions, and not under the daemon's own, tries what it may not.
cat >/test/tries.sh <<'TRIES'
cd /tmp
touch tried
tries() { "$@" >/dev/null 2>&1 && echo "may: $*"; }
tries chmod u+s tried
tries chown 1 tried
tries mknod node c 1 3
tries chrt --fifo 1 true
tries linux32 true
tries ping -n -6 -c 1 ::1
tries ip link add v0 type veth peer name v1
tries ping -n -c 1 127.0.0.1
rm -f tried node
ip link delete v0
TRIES
sed -e 's,^ExecStart=.*,ExecStart=/bin/sh /test/tries.sh,' -e 's/^Type=.*/Type=oneshot/' -e '/^Restart/d' -e '/Directory/d' \
    -e 's,^UMask,StandardOutput=file:/test/may\nUMask,' /usr/lib/systemd/system/$unit >/etc/systemd/system/tries.service
systemctl daemon-reload
[ "$(sh /test/tries.sh | wc -l)" = 8 ] || fail "without restrictions this may more than: $(sh /test/tries.sh)"
systemctl start tries.service
[ "$(cat /test/may)" = "may: ip link add v0 type veth peer name v1
may: ping -n -c 1 127.0.0.1" ] || fail "under the unit's restrictions: $(cat /test/may)"
rm /etc/systemd/system/tries.service

say "pods, and a connection that stays"
for pod in a b; do
    ip netns add $pod
    in_pod $pod ip link set lo up
done
switch-ctl bridge add br0
switch-ctl port add tap a --bridge br0 --netns a --address 10.66.0.2/24
switch-ctl port add tap b --bridge br0 --netns b --address 10.66.0.3/24
switch-ctl port add host node --bridge br0 --address 10.66.0.1/24
echo 0 >/run/sent
# What is read from there never comes, and never ends.
mkfifo /run/quiet
in_pod b busybox nc -l -p 7000 <>/run/quiet >/run/come &
receiver=$!
within 300 answers || fail "pods do not reach each other"
# Port 7000: who connects before it listens is refused.
within 300 listens || fail "nobody listens"
(
    n=0
    while [ ! -e /run/enough ]; do
        n=$((n + 1))
        echo $n
        echo $n >/run/sent.new
        mv /run/sent.new /run/sent
        sleep 0.02
    done
) | in_pod a busybox nc 10.66.0.3 7000 &
sender=$!
carries "at first"
within 300 has StatusText "3 of 3 ports up" || fail "its status: $(shown StatusText)"

say "restarted"
was=$(shown MainPID)
systemctl restart $unit
followed "restarted" "$was"
is NRestarts 0

say "killed"
was=$(shown MainPID)
kill -KILL "$was"
followed "killed" "$was"
is NRestarts 1
is StatusText "3 of 3 ports up"

say "sent SIGHUP, as daemons are that shall read something anew"
was=$(shown MainPID)
kill -HUP "$was"
followed "sent SIGHUP" "$was"

say "stopped by SIGSTOP: the watchdog kills it, and another follows"
mkdir -p /etc/systemd/system/$unit.d
printf '[Service]\nWatchdogSec=2\n' >/etc/systemd/system/$unit.d/quick.conf
systemctl daemon-reload
systemctl restart $unit
is WatchdogUSec 2s
was=$(shown MainPID)
# It is heard by a systemd that was started anew as well.
systemctl daemon-reexec
sleep 2.5
is MainPID "$was"
kill -STOP "$was"
followed "stopped by SIGSTOP" "$was"
is NRestarts 1
journalctl --quiet --unit $unit --grep 'Watchdog timeout' >/dev/null || fail "it was not the watchdog"

say "its keeper is killed: the watchdog ends it, too, since only another daemon has another keeper"
was=$(shown MainPID)
kill -KILL $(grep -vx "$was" /sys/fs/cgroup/system.slice/$unit/cgroup.procs)
followed "its keeper was killed" "$was"

say "an option that is wrong: told why, and back as soon as it is right"
printf '[Service]\nExecStart=\nExecStart=/usr/sbin/switchd --state /var/lib/switchd/state --bpffs /sys/fs/bpf/switchd --group strangers\n' \
    >/etc/systemd/system/$unit.d/wrong.conf
systemctl daemon-reload
! systemctl restart $unit 2>/dev/null || fail "a daemon that ends at once is called started"
# Between two tries it shows neither.
status_says_why() { systemctl status --lines 20 $unit | grep -q 'no group named strangers; .groupadd --system strangers'; }
within 300 status_says_why || fail "its status does not say why"
journalctl --quiet --unit $unit --priority err --grep '^there is no group named strangers' >/dev/null || fail "not told as an error"
! journalctl --quiet --unit $unit --priority warning --grep 'serving' >/dev/null || fail "what went well is told as a warning"
rm /etc/systemd/system/$unit.d/wrong.conf
systemctl daemon-reload
followed "mended" 0

say "told to stop, by systemctl and by switch-ctl: it stays so, and pods keep their devices"
for word in "systemctl stop $unit" "switch-ctl stop"; do
    $word
    within 300 has ActiveState inactive || fail "$word: it runs"
    sleep 0.5
    is ActiveState inactive
    is Result success
    [ -z "$(pidof switchd)" ] || fail "$word: a daemon is left"
    in_pod a ip -o address show eth0 | grep -q 10.66.0.2/24 || fail "$word: the pod lost its device"
    systemctl start $unit
    carries "$word, and started"
done

say "upgraded while it runs"
was=$(shown MainPID)
dpkg --install /test/second.deb
followed "upgraded" "$was"
is NeedDaemonReload no

touch /run/enough
wait $sender || fail "the sender ended with $?"
within 300 has_come $(($(cat /run/sent) - 1)) || fail "the end of what was sent is missing"
seq "$(cat /run/sent)" | cmp - /run/come || fail "what was sent is not what came"
say "one connection through all of it: $(cat /run/sent) lines, each once and in order"
rm -r /etc/systemd/system/$unit.d
