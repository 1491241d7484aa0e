// Which queue of a TAP device a pod's frame goes into: by its flow alone, whatever queue the switch writes by. Without
// it the kernel sends a flow where its last answer was written, and frames of one flow lie in two queues meanwhile.
//
// TCP goes by addresses and ports; other IP packets go by addresses alone, because a fragment has no ports and must not
// be overtaken by the datagram behind it; what is no IP goes by its stations. Both directions of a flow have one queue.
//
// Built by clang -target bpf in build.rs and loaded by steering.rs. Self-contained, as the XDP program is.

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define SEC(name) __attribute__((section(name), used))

static long (*bpf_skb_load_bytes)(const void *skb, u32 offset, void *to, u32 len) = (void *)26;

#define IPV4 0x0800
#define IPV6 0x86dd
#define TCP 6

// The switch's queues: a queue that somebody else attached gets nothing.
const volatile u32 queues = 1;

static __attribute__((always_inline)) u32 be16(const u8 *at)
{
	return (u32)at[0] << 8 | at[1];
}

// The same for both directions.
static __attribute__((always_inline)) u32 ports(const void *skb, u32 at)
{
	u16 pair[2] = { 0, 0 };
	if (bpf_skb_load_bytes(skb, at, pair, sizeof(pair)) < 0)
		return 0;
	return (u32)pair[0] + pair[1];
}

static __attribute__((always_inline)) u32 of_stations(const u8 *frame)
{
	u32 sum = 0;
	for (int i = 0; i < 12; i += 2)
		sum += be16(frame + i) << (i % 6);
	return sum;
}

static __attribute__((always_inline)) u32 of_ipv4(const void *skb)
{
	u8 head[20];
	u32 addresses[2];
	if (bpf_skb_load_bytes(skb, 14, head, sizeof(head)) < 0)
		return 0;
	__builtin_memcpy(addresses, head + 12, sizeof(addresses));
	u32 sum = addresses[0] + addresses[1];
	// A fragment, the first one too, has no ports here.
	if (head[9] == TCP && !(be16(head + 6) & 0x3fff))
		sum += ports(skb, 14 + (head[0] & 15) * 4) * 0x9e3779b1;
	return sum;
}

static __attribute__((always_inline)) u32 of_ipv6(const void *skb)
{
	u8 head[40];
	u32 addresses[8], sum = 0;
	if (bpf_skb_load_bytes(skb, 14, head, sizeof(head)) < 0)
		return 0;
	__builtin_memcpy(addresses, head + 8, sizeof(addresses));
	for (int i = 0; i < 4; i++)
		sum = (sum << 5 | sum >> 27) + addresses[i] + addresses[i + 4];
	if (head[6] == TCP)
		sum += ports(skb, 54) * 0x9e3779b1;
	return sum;
}

SEC("socket")
int steer_flow(void *skb)
{
	u8 frame[14];
	if (bpf_skb_load_bytes(skb, 0, frame, sizeof(frame)) < 0)
		return 0;
	u32 type = be16(frame + 12);
	u32 sum = type == IPV4 ? of_ipv4(skb) : type == IPV6 ? of_ipv6(skb) : of_stations(frame);
	// Every bit into the high ones (Knuth, 6.4), of which the queue is made.
	sum = (sum ^ sum >> 16) * 0x85ebca6b;
	sum = (sum ^ sum >> 13) * 0xc2b2ae35;
	return (u64)(sum ^ sum >> 16) * queues >> 32;
}
