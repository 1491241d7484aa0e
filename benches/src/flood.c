// A generator faster than any socket, and a sink that only counts. The generator runs as an XDP test run
// with live frames (BPF_PROG_RUN); it rewrites every frame, because recycled pages keep what they were.
//
// Self-contained, as the product's own program: no header is needed to build it.

typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long long u64;

#define SEC(name) __attribute__((section(name), used))
#define __uint(name, value) int (*name)[value]
#define __type(name, value) typeof(value) *name

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
static long (*bpf_redirect)(u32 ifindex, u64 flags) = (void *)23;

// 0: device to send by; 1: flows; 2: stop.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 3);
	__type(key, u32);
	__type(value, u32);
} control SEC(".maps");

// 0: packets made; 1: packets sunk.
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 2);
	__type(key, u32);
	__type(value, u64);
} counts SEC(".maps");

SEC("xdp")
int generate(struct xdp_md *ctx)
{
	u32 zero = 0, one = 1, two = 2;
	u32 *device = bpf_map_lookup_elem(&control, &zero);
	u32 *flows = bpf_map_lookup_elem(&control, &one);
	u32 *stop = bpf_map_lookup_elem(&control, &two);
	u64 *made = bpf_map_lookup_elem(&counts, &zero);
	u8 *data = (u8 *)(long)ctx->data;
	u8 *end = (u8 *)(long)ctx->data_end;
	if (!device || !flows || !stop || !made || *(volatile u32 *)stop || data + 60 > end)
		return XDP_DROP;
	u32 flow = (u32)(*made % (*flows ? *flows : 1));
	// 02:01 and four bytes: the far station; 02:00 and four bytes: the near one.
	data[0] = data[6] = 0x02;
	data[1] = 0x01;
	data[7] = 0x00;
	data[2] = data[8] = flow >> 24;
	data[3] = data[9] = flow >> 16;
	data[4] = data[10] = flow >> 8;
	data[5] = data[11] = flow;
	*(u64 *)(data + 42) = *made;
	(*made)++;
	return bpf_redirect(*device, 0);
}

SEC("xdp")
int sink(struct xdp_md *ctx)
{
	u32 one = 1;
	u8 *data = (u8 *)(long)ctx->data;
	u8 *end = (u8 *)(long)ctx->data_end;
	// IPv4, UDP, port 12345: the generator's.
	if (data + 60 > end || data[12] != 8 || data[13] || data[23] != 17 || data[36] != 0x30 || data[37] != 0x39)
		return XDP_PASS;
	u64 *sunk = bpf_map_lookup_elem(&counts, &one);
	if (sunk)
		(*sunk)++;
	return XDP_DROP;
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
