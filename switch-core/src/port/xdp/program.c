// The XDP program of a port: what belongs to the switch goes to the queue's AF_XDP socket, the rest on to
// the host's kernel. While the switch does not beat, everything is dropped or passed, as the port says.
//
// Built by clang -target bpf in build.rs and loaded by program.rs, whose structs mirror those below.
// Self-contained on purpose: the product builds with Rust and clang alone, so the few kernel types it
// needs (include/uapi/linux/bpf.h) are written out.

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long s64;

#define SEC(name) __attribute__((section(name), used))
#define __uint(name, value) int (*name)[value]
#define __type(name, value) typeof(value) *name

#define BPF_MAP_TYPE_HASH 1
#define BPF_MAP_TYPE_ARRAY 2
#define BPF_MAP_TYPE_LPM_TRIE 11
#define BPF_MAP_TYPE_XSKMAP 17
#define BPF_F_NO_PREALLOC (1U << 0)
#define BPF_F_MMAPABLE (1U << 10)
#define LIBBPF_PIN_BY_NAME 1
#define XDP_DROP 1
#define XDP_PASS 2

struct xdp_md {
	u32 data;
	u32 data_end;
	u32 data_meta;
	u32 ingress_ifindex;
	u32 rx_queue_index;
	u32 egress_ifindex;
};

static void *(*bpf_map_lookup_elem)(void *map, const void *key) = (void *)1;
static long (*bpf_redirect_map)(void *map, u64 key, u64 flags) = (void *)51;
static u64 (*bpf_ktime_get_coarse_ns)(void) = (void *)160;

#define DEVICES_MAX 512
#define SOCKETS_MAX 4096
#define WORKERS_MAX 64
#define RULES_MAX 16
#define NETWORKS_MAX 16384
#define SHARES_MAX 65536

#define TCP 6
#define UDP 17
#define SCTP 132
#define ICMP 1
#define ICMPV6 58

enum { TAKE_EVERYTHING, TAKE_NOTHING, TAKE_MATCHING, TAKE_NETWORKS };

struct rule {
	u16 ethertype; // as in the frame, and so are the others
	u16 words; // of the destination: 0 matches every one, 2 for IPv4, 8 for IPv6
	u16 address[8]; // under the mask
	u16 mask[8];
};

// What one device's frames are to meet.
struct device {
	u64 dead_after_ns;
	u32 dead_action; // XDP_DROP or XDP_PASS
	u32 take;
	u32 rules_len;
	u32 first; // its queue 0 in `sockets` and `queue_worker`; the others follow
	u32 queues;
	u16 mac[3]; // of the device, as in the frame: TAKE_NETWORKS
	u16 unused;
	struct rule rules[RULES_MAX];
};

// By the device's index.
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, DEVICES_MAX);
	__type(key, u32);
	__type(value, struct device);
} devices SEC(".maps");

// The kernel itself sees to it that a socket gets frames of its own device and queue alone (xsk_rcv_check).
struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, SOCKETS_MAX);
	__type(key, u32);
	__type(value, u32);
} sockets SEC(".maps");

// A destination under TAKE_NETWORKS; IPv4 is IPv4-mapped.
struct network {
	u32 len; // bits that count
	u16 address[8];
};

// Whose the packets to a network are. KERNELS is the kernel's own address in a larger one that is the switch's; ASKED is an
// address that the switch answers questions about, too; of SHARED, the kernel's own, some ports are the switch's.
enum { KERNELS, SWITCHS, ASKED, SHARED };

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, NETWORKS_MAX);
	__type(key, struct network);
	__type(value, u32);
} networks SEC(".maps");

// 64 ports of one address and protocol, of which one bit each says whether it is the switch's.
struct share {
	u16 address[8]; // as in struct network
	u32 what; // protocol, and above it the port without its lowest 6 bits
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, SHARES_MAX);
	__type(key, struct share);
	__type(value, u64);
} shares SEC(".maps");

// Which worker serves a queue: whose beat counts for it.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SOCKETS_MAX);
	__type(key, u32);
	__type(value, u32);
} queue_worker SEC(".maps");

// Frames that the programs dropped.
struct drops {
	u64 dead; // nobody beat
	u64 closed; // no socket was there: the port is opened or closed just now
};

// Those of a device, by its index; an entry is made before the program is on the device. Shared by all programs and kept by the bpffs, so
// that a daemon that comes back knows what its absence cost.
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, DEVICES_MAX);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__type(key, u32);
	__type(value, struct drops);
} dropped SEC(".maps");

// CLOCK_MONOTONIC of each worker's last turn, in ns. Written through a memory mapping, shared by all
// programs.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, WORKERS_MAX);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__type(key, u32);
	__type(value, u64);
} beats SEC(".maps");

static __attribute__((always_inline)) int is_alive(const struct device *device, u32 place)
{
	u32 *worker = bpf_map_lookup_elem(&queue_worker, &place);
	if (!worker)
		return 0;
	u64 *beat = bpf_map_lookup_elem(&beats, worker);
	if (!beat)
		return 0;
	// Signed: a beat may be newer than this coarse clock's last tick.
	return (s64)(bpf_ktime_get_coarse_ns() - *(volatile u64 *)beat) <= (s64)device->dead_after_ns;
}

static __attribute__((always_inline)) void count_drop(const u32 *index, int is_dead)
{
	struct drops *drops = bpf_map_lookup_elem(&dropped, index);
	if (drops)
		__sync_fetch_and_add(is_dead ? &drops->dead : &drops->closed, 1);
}

// Without a branch a word: a branch a byte, sixteen rules long, took the verifier 130 ms.
static __attribute__((always_inline)) int prefix_matches(const u8 *destination, const struct rule *rule, int words)
{
	const u16 *address = (const u16 *)destination;
	u16 differing = 0;
	for (int i = 0; i < words; i++)
		differing |= (address[i] ^ rule->address[i]) & rule->mask[i];
	return !differing;
}

static __attribute__((always_inline)) int rule_matches(const struct rule *rule, const u8 *data, const u8 *end)
{
	if (data + 14 > end || *(const u16 *)(data + 12) != rule->ethertype)
		return 0;
	// The daemon admits prefixes for these two only.
	switch (rule->words) {
	case 0:
		return 1;
	case 2:
		return data + 34 <= end && prefix_matches(data + 30, rule, 2);
	default:
		return data + 54 <= end && prefix_matches(data + 38, rule, 8);
	}
}

static __attribute__((always_inline)) u32 whose(const struct network *to)
{
	u32 *found = bpf_map_lookup_elem(&networks, to);
	return found ? *found : KERNELS;
}

static __attribute__((always_inline)) void set_v4(struct network *to, const u16 *words)
{
	to->address[5] = 0xffff;
	to->address[6] = words[0];
	to->address[7] = words[1];
}

static __attribute__((always_inline)) void set_v6(struct network *to, const u16 *words)
{
	for (int i = 0; i < 8; i++)
		to->address[i] = words[i];
}

static __attribute__((always_inline)) int is_our_port(const struct network *to, u32 protocol, const u8 *port)
{
	struct share key = {};
	for (int i = 0; i < 8; i++)
		key.address[i] = to->address[i];
	u32 number = port[0] << 8 | port[1];
	key.what = protocol | (number >> 6) << 8;
	u64 *bits = bpf_map_lookup_elem(&shares, &key);
	return bits && *bits >> (number & 63) & 1;
}

// Of a packet that is quoted in an error, from the address that the error is told to: 8 bytes of what is behind its headers.
static __attribute__((always_inline)) int is_quote_of_ours(const struct network *to, u32 protocol, const u8 *quoted)
{
	switch (protocol) {
	case TCP:
	case UDP:
	case SCTP:
		return is_our_port(to, protocol, quoted);
	case ICMP:
		return quoted[0] == 8 && is_our_port(to, protocol, quoted + 4);
	case ICMPV6:
		return quoted[0] == 128 && is_our_port(to, protocol, quoted + 4);
	default:
		return 0;
	}
}

// To a port, or an identifier, that is the switch's: an address of the kernel's is shared. Fragments are the kernel's.
static __attribute__((always_inline)) int shares_v4(const struct network *to, const u8 *ip, const u8 *end)
{
	const u8 *rest = ip + (ip[0] & 15) * 4;
	if (rest + 8 > end || (*(const u16 *)(ip + 6) & 0xff3f))
		return 0;
	if (ip[9] == TCP || ip[9] == UDP || ip[9] == SCTP)
		return is_our_port(to, ip[9], rest + 2);
	if (ip[9] != ICMP)
		return 0;
	if (rest[0] == 0)
		return is_our_port(to, ICMP, rest + 4);
	// Unreachable, time exceeded, parameter problem.
	if ((rest[0] != 3 && rest[0] != 11 && rest[0] != 12) || rest + 36 > end)
		return 0;
	const u8 *inner = rest + 8;
	const u16 *from = (const u16 *)(inner + 12);
	const u8 *quoted = inner + (inner[0] & 15) * 4;
	if (from[0] != to->address[6] || from[1] != to->address[7] || quoted + 8 > end)
		return 0;
	return is_quote_of_ours(to, inner[9], quoted);
}

static __attribute__((always_inline)) int shares_v6(const struct network *to, const u8 *ip, const u8 *end)
{
	const u8 *rest = ip + 40;
	if (rest + 8 > end)
		return 0;
	if (ip[6] == TCP || ip[6] == UDP || ip[6] == SCTP)
		return is_our_port(to, ip[6], rest + 2);
	if (ip[6] != ICMPV6)
		return 0;
	if (rest[0] == 129)
		return is_our_port(to, ICMPV6, rest + 4);
	// Unreachable, too big, time exceeded, parameter problem.
	if (rest[0] < 1 || rest[0] > 4 || rest + 56 > end)
		return 0;
	const u16 *from = (const u16 *)(rest + 16);
	u16 differs = 0;
	for (int i = 0; i < 8; i++)
		differs |= from[i] ^ to->address[i];
	return !differs && is_quote_of_ours(to, rest[14], rest + 48);
}

// A question of ARP for an address that only the switch answers for.
static __attribute__((always_inline)) int arp_asks_us(struct network *to, const u8 *data, const u8 *end)
{
	if (data + 42 > end || data[20] != 0 || data[21] != 1)
		return 0;
	set_v4(to, (const u16 *)(data + 38));
	return whose(to) == ASKED;
}

// The same of neighbour discovery, to a group.
static __attribute__((always_inline)) int nd_asks_us(struct network *to, const u8 *data, const u8 *end)
{
	if (data + 78 > end || data[20] != ICMPV6 || data[54] != 135)
		return 0;
	set_v6(to, (const u16 *)(data + 62));
	return whose(to) == ASKED;
}

// To the device's own MAC, and to a network behind the switch, or to an address or port of its translation; and questions for
// such addresses. All other groups, ARP and neighbour discovery, what is tagged and what is the host's own are the kernel's.
static __attribute__((always_inline)) int is_behind_us(const struct device *device, const u8 *data, const u8 *end)
{
	struct network to = { .len = 128 };
	const u16 *words = (const u16 *)data;
	if (data + 14 > end)
		return 0;
	int is_group = data[0] & 1;
	if (!is_group &&
	    ((words[0] ^ device->mac[0]) | (words[1] ^ device->mac[1]) | (words[2] ^ device->mac[2])))
		return 0;
	if (data[12] == 0x08 && data[13] == 0x06)
		return arp_asks_us(&to, data, end);
	if (data[12] == 0x08 && data[13] == 0x00) {
		if (is_group || data + 34 > end)
			return 0;
		set_v4(&to, words + 15);
		u32 of = whose(&to);
		return of == SHARED ? shares_v4(&to, data + 14, end) : of;
	}
	if (data[12] == 0x86 && data[13] == 0xdd) {
		if (is_group)
			return nd_asks_us(&to, data, end);
		if (data + 54 > end)
			return 0;
		set_v6(&to, words + 19);
		u32 of = whose(&to);
		return of == SHARED ? shares_v6(&to, data + 14, end) : of;
	}
	return 0;
}

static __attribute__((always_inline)) int is_ours(const struct device *device, const u8 *data, const u8 *end)
{
	if (device->take != TAKE_MATCHING)
		return device->take == TAKE_EVERYTHING;
	for (u32 i = 0; i < RULES_MAX; i++) {
		if (i >= device->rules_len)
			break;
		if (rule_matches(&device->rules[i], data, end))
			return 1;
	}
	return 0;
}

static __attribute__((always_inline)) int steer(struct xdp_md *ctx, int is_uplink)
{
	u32 index = ctx->ingress_ifindex, queue = ctx->rx_queue_index;
	struct device *device = bpf_map_lookup_elem(&devices, &index);
	// Told of before it is attached: this is for the moment in which it is taken off.
	if (!device) {
		if (is_uplink)
			return XDP_PASS;
		count_drop(&index, 0);
		return XDP_DROP;
	}
	const u8 *data = (const u8 *)(long)ctx->data;
	const u8 *end = (const u8 *)(long)ctx->data_end;
	if (!(is_uplink ? is_behind_us(device, data, end) : is_ours(device, data, end)))
		return XDP_PASS;
	u32 place = device->first + queue;
	long action = device->dead_action;
	int is_dead = queue < device->queues && !is_alive(device, place);
	// No socket on this queue: the low bits of the flags say what then.
	if (queue < device->queues && !is_dead)
		action = bpf_redirect_map(&sockets, place, device->dead_action);
	if (action == XDP_DROP)
		count_drop(&index, is_dead);
	return action;
}

// Each program twice: one says that it can live with a frame in several buffers (Linux 5.18), which a
// device with a large MTU asks for; the other is for kernels that do not know the flag. Only the first
// buffer is looked at, and every header we look at is in it. All ports share one program; an uplink has one
// of its own, with its own networks, and nobody else waits for the verifier to walk through it.
SEC("xdp.frags")
int switch_port_frags(struct xdp_md *ctx)
{
	return steer(ctx, 0);
}

SEC("xdp")
int switch_port(struct xdp_md *ctx)
{
	return steer(ctx, 0);
}

SEC("xdp.frags")
int switch_uplink_frags(struct xdp_md *ctx)
{
	return steer(ctx, 1);
}

SEC("xdp")
int switch_uplink(struct xdp_md *ctx)
{
	return steer(ctx, 1);
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
