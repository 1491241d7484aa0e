// A generator faster than any socket, and a sink that counts, checks and times. The generator runs as an XDP test run with live
// frames (BPF_PROG_RUN); it rewrites every frame, because recycled pages keep what they were. It sends as fast as it goes,
// or at a rate: then a turn in which nothing is due makes nothing.
//
// Self-contained, as the product's own program: no header is needed to build it. The numbers of the maps' places are those of flood.rs.

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define SEC(name) __attribute__((section(name), used))
#define __uint(name, value) int (*name)[value]
#define __type(name, value) typeof(value) *name
#define htons(x) __builtin_bswap16(x)
#define htonl(x) __builtin_bswap32(x)

#define BPF_MAP_TYPE_ARRAY 2
#define BPF_MAP_TYPE_PERCPU_ARRAY 6
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
static u64 (*bpf_ktime_get_ns)(void) = (void *)5;
static long (*bpf_redirect)(u32 ifindex, u64 flags) = (void *)23;
static long (*bpf_xdp_adjust_tail)(void *ctx, int delta) = (void *)65;

// What is to be sent. Of one writer, before the run; only `stop` changes during it.
struct plan {
	u64 rate_pps;		// 0: as fast as it goes
	u32 device;		// to send by
	u32 flows;
	u32 stations;		// pairs that the flows are of; flow n is of pair n modulo this
	u32 stop;
	u32 len;		// bytes of the frame given to the test run
	u32 imix;		// cut to the Internet mix: seven of 60, four of 590, one of 1514
	u32 routed;		// to the gateway below, and a hop less at the sink
	u8 gateway[6];
	u8 pad[6];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct plan);
} plans SEC(".maps");

// 0: packets made; 1: packets sunk; 2: packets that are not as they should be; 3: when the run began, ns.
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 4);
	__type(key, u32);
	__type(value, u64);
} counts SEC(".maps");

// Latencies, by power of two and sixteenth of it.
#define BUCKETS 1024
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, BUCKETS);
	__type(key, u32);
	__type(value, u64);
} latencies SEC(".maps");

// One frame in so many is checked and timed: reading the clock and summing a header for every one would be felt by
// what is measured, on whose core the sink runs.
#define CHECK_EVERY 16
// A generator that was held up does not make up for more than so many frames at once.
#define DEBT_MAX 64

struct frame {
	u8 dst[6], src[6];
	u16 type;
	u8 version, tos;
	u16 length, id, fragment;
	u8 ttl, protocol;
	u16 checksum;
	u32 from, to;
	u16 from_port, to_port, udp_length, udp_checksum;
	u64 number, time;
} __attribute__((packed));

static __attribute__((always_inline)) u16 ip_sum(struct frame *frame)
{
	u16 *word = (u16 *)&frame->version;
	u32 sum = 0;
#pragma unroll
	for (int i = 0; i < 10; i++)
		sum += word[i];
	sum = (sum & 0xffff) + (sum >> 16);
	return (sum & 0xffff) + (sum >> 16);
}

static __attribute__((always_inline)) u32 imix_len(u64 number)
{
	u32 place = number % 12;
	if (place == 6)
		return 1514;
	return place == 1 || place == 4 || place == 8 || place == 11 ? 590 : 60;
}

static __attribute__((always_inline)) void station(u8 *mac, u8 side, u32 number)
{
	mac[0] = 0x02;
	mac[1] = side;
	mac[2] = number >> 24;
	mac[3] = number >> 16;
	mac[4] = number >> 8;
	mac[5] = number;
}

SEC("xdp")
int generate(struct xdp_md *ctx)
{
	u32 zero = 0, three = 3;
	struct plan *plan = bpf_map_lookup_elem(&plans, &zero);
	u64 *made = bpf_map_lookup_elem(&counts, &zero);
	u64 *began = bpf_map_lookup_elem(&counts, &three);
	if (!plan || !made || !began || *(volatile u32 *)&plan->stop)
		return XDP_DROP;
	u64 now = bpf_ktime_get_ns();
	if (plan->rate_pps) {
		if (!*began)
			*began = now;
		u64 due = (now - *began) * plan->rate_pps / 1000000000;
		if (*made >= due)
			return XDP_DROP;
		if (due - *made > DEBT_MAX)
			*began += (due - *made - DEBT_MAX) * 1000000000 / plan->rate_pps;
	}
	u32 len = plan->len;
	if (plan->imix) {
		len = imix_len(*made);
		if (bpf_xdp_adjust_tail(ctx, (int)len - (int)plan->len))
			return XDP_DROP;
	}
	struct frame *frame = (void *)(long)ctx->data;
	if ((void *)(frame + 1) > (void *)(long)ctx->data_end)
		return XDP_DROP;
	u32 flow = (u32)(*made % (plan->flows ? plan->flows : 1));
	u32 pair = flow % (plan->stations ? plan->stations : 1);
	// 02:01 and four bytes: the far station; 02:00 and four bytes: the near one.
	if (plan->routed)
		__builtin_memcpy(frame->dst, plan->gateway, 6);
	else
		station(frame->dst, 1, pair);
	station(frame->src, 0, pair);
	frame->type = htons(0x0800);
	frame->version = 0x45;
	frame->tos = 0;
	frame->length = htons(len - 14);
	frame->id = 0;
	frame->fragment = htons(0x4000);
	frame->ttl = 64;
	frame->protocol = 17;
	frame->checksum = 0;
	frame->from = htonl(10 << 24 | (flow & 0xffffff));
	frame->to = htonl(11 << 24 | (flow & 0xffffff));
	frame->checksum = ~ip_sum(frame);
	frame->from_port = frame->to_port = htons(12345);
	frame->udp_length = htons(len - 34);
	frame->udp_checksum = 0;
	frame->number = *made;
	frame->time = now;
	(*made)++;
	return bpf_redirect(plan->device, 0);
}

static __attribute__((always_inline)) u32 bucket(u64 ns)
{
	u32 power = 0;
	u64 left = ns;
#pragma unroll
	for (int bits = 32; bits; bits >>= 1)
		if (left >> bits) {
			left >>= bits;
			power += bits;
		}
	u32 part = power < 4 ? ns << (4 - power) : ns >> (power - 4);
	return (power << 4 | (part & 15)) & (BUCKETS - 1);
}

// Whether it is what was sent, a hop further if it was routed.
static __attribute__((always_inline)) int is_right(struct frame *frame, struct plan *plan, u32 len)
{
	u32 flow = htonl(frame->from) & 0xffffff;
	u32 wanted = plan->imix ? imix_len(frame->number) : plan->len;
	if (len != wanted || frame->length != htons(len - 14) || frame->udp_length != htons(len - 34))
		return 0;
	if (flow != (htonl(frame->to) & 0xffffff) || flow != (u32)(frame->number % (plan->flows ? plan->flows : 1)))
		return 0;
	return ip_sum(frame) == 0xffff && frame->ttl == (plan->routed ? 63 : 64);
}

SEC("xdp")
int sink(struct xdp_md *ctx)
{
	u32 zero = 0, one = 1, two = 2;
	struct frame *frame = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	// IPv4, UDP, port 12345: the generator's.
	if ((void *)(frame + 1) > end || frame->type != htons(0x0800) || frame->protocol != 17
	    || frame->to_port != htons(12345))
		return XDP_PASS;
	u64 *sunk = bpf_map_lookup_elem(&counts, &one);
	if (sunk)
		(*sunk)++;
	if (frame->number % CHECK_EVERY)
		return XDP_DROP;
	struct plan *plan = bpf_map_lookup_elem(&plans, &zero);
	u64 *wrong = bpf_map_lookup_elem(&counts, &two);
	if (plan && wrong && plan->len && !is_right(frame, plan, (u32)((long)end - (long)frame)))
		(*wrong)++;
	u32 place = bucket(bpf_ktime_get_ns() - frame->time);
	u64 *times = bpf_map_lookup_elem(&latencies, &place);
	if (times)
		(*times)++;
	return XDP_DROP;
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
