/* The C twin of sim/vring_split.py with the kernel's vhost as the device; see ring.h. */
#include "ring.h"

struct extra { uint16_t next, last, count; int64_t token; };

struct split {
	uint8_t *mem;
	uint64_t memory, desc, avail, used;
	uint32_t num;
	bool event_idx, indirect;
	struct buffers request, chain;
	/* driver */
	uint32_t free_head, num_free, num_added;
	uint16_t shadow, last_used, avail_flags;
	uint32_t used_length;
	bool broken;
	int verdict, verdicts[VERDICTS];
	/* device */
	uint16_t last_avail, avail_idx, device_used, signalled_used;
	bool signalled_used_valid;
	int device_verdict, device_verdicts[VERDICTS];
	struct extra extra[];
};

static void write_desc(uint8_t *at, uint64_t address, uint32_t length, uint16_t flags,
		       uint16_t next)
{
	store64(at, address);
	store32(at + 8, length);
	store16(at + 12, flags);
	store16(at + 14, next);
}

static int add(struct split *s, const struct buffers *b, int64_t token, uint64_t table)
{
	uint32_t total = b->out + b->in, needed, head, last, i;
	bool indirect;

	if (s->broken)
		return EIO_;
	indirect = s->indirect && total > 1 && s->num_free > 0 && table;
	needed = indirect ? 1 : total;
	if (s->num_free < needed)
		return ENOSPC_;
	head = last = s->free_head;
	if (indirect) {
		for (i = 0; i < total; i++)
			write_desc(s->mem + table + 16 * i, b->at[i].address, b->at[i].length,
				   (i < b->out ? 0 : F_WRITE) | (i < total - 1 ? F_NEXT : 0), i + 1);
		write_desc(s->mem + s->desc + 16 * head, table, 16 * total, F_INDIRECT,
			   s->extra[head].next);
		s->free_head = s->extra[head].next;
	} else {
		uint32_t index = head;

		for (i = 0; i < total; i++) {
			write_desc(s->mem + s->desc + 16 * index, b->at[i].address, b->at[i].length,
				   (i < b->out ? 0 : F_WRITE) | (i < total - 1 ? F_NEXT : 0),
				   s->extra[index].next);
			last = index;
			index = s->extra[index].next;
		}
		s->free_head = index;
	}
	s->num_free -= needed;
	s->extra[head].token = token;
	s->extra[head].last = last;
	s->extra[head].count = needed;
	store16(s->mem + s->avail + 4 + 2 * (s->shadow & (s->num - 1)), head);
	s->shadow++;
	store16(s->mem + s->avail + 2, s->shadow);
	s->num_added++;
	return head;
}

static bool kick_prepare(struct split *s)
{
	uint16_t new = s->shadow, old = new - s->num_added;

	s->num_added = 0;
	if (s->broken)
		return false;
	if (s->event_idx)
		return need_event(load16(s->mem + s->used + 4 + 8 * s->num), new, old);
	return !(load16(s->mem + s->used) & 1);
}

static int64_t bad_ring(struct split *s, int verdict)
{
	s->verdict = verdict;
	s->verdicts[verdict]++;
	s->broken = true;
	return EMPTY;
}

static int64_t get_buf(struct split *s)
{
	const uint8_t *at;
	uint32_t head;
	int64_t token;

	if (s->broken || load16(s->mem + s->used + 2) == s->last_used)
		return EMPTY;
	at = s->mem + s->used + 4 + 8 * (s->last_used & (s->num - 1));
	s->used_length = load32(at + 4);
	head = load32(at);
	if (head >= s->num)
		return bad_ring(s, USED_ID_RANGE);
	token = s->extra[head].token;
	if (token < 0)
		return bad_ring(s, USED_NOT_A_HEAD);
	s->extra[head].token = EMPTY;
	s->num_free += s->extra[head].count;
	s->extra[s->extra[head].last].next = s->free_head;
	s->free_head = head;
	s->last_used++;
	if (!(s->avail_flags & 1))
		store16(s->mem + s->avail + 4 + 2 * s->num, s->last_used);
	return token;
}

static int walk_table(struct split *s, uint64_t table, uint32_t bytes)
{
	uint32_t i;

	if (bytes % 16)
		return BAD_TABLE_LENGTH;
	if (!in_memory(s->memory, (int64_t)table, bytes))
		return BAD_TABLE_ADDRESS;
	if (bytes / 16 > 65536)
		return TABLE_TOO_LONG;
	for (i = 0; i < bytes / 16; i++) {
		const uint8_t *at = s->mem + table + 16 * i;
		uint16_t flags = load16(at + 12);
		int verdict;

		if (flags & F_INDIRECT)
			return NESTED_TABLE;
		verdict = take_buffer(&s->chain, s->memory, false, load64(at), load32(at + 8), flags);
		if (verdict)
			return verdict;
		if (!(flags & F_NEXT))
			return SOUND;
	}
	return LOOP;
}

static int walk_chain(struct split *s, uint32_t head)
{
	uint32_t index = head, i;

	for (i = 0; i < s->num; i++) {
		const uint8_t *at;
		uint64_t address;
		uint32_t length;
		uint16_t flags;
		int verdict;

		if (index >= s->num)
			return index == head ? BAD_HEAD : BAD_NEXT;
		at = s->mem + s->desc + 16 * index;
		address = load64(at);
		length = load32(at + 8);
		flags = load16(at + 12);
		verdict = flags & F_INDIRECT ?
			walk_table(s, address, length) :
			take_buffer(&s->chain, s->memory, false, address, length, flags);
		if (verdict)
			return verdict;
		if (!(flags & F_NEXT))
			return SOUND;
		index = load16(at + 14);
	}
	return LOOP;
}

static int refuse(struct split *s, int verdict)
{
	s->device_verdict = verdict;
	s->device_verdicts[verdict]++;
	return EINVAL_;
}

static int fetch(struct split *s)
{
	uint32_t head;
	int verdict;

	if (s->avail_idx == s->last_avail) {
		s->avail_idx = load16(s->mem + s->avail + 2);
		if (s->avail_idx == s->last_avail)
			return EMPTY;
		if ((uint16_t)(s->avail_idx - s->last_avail) > s->num)
			return refuse(s, BAD_AVAIL_INDEX);
	}
	head = load16(s->mem + s->avail + 4 + 2 * (s->last_avail & (s->num - 1)));
	clear_buffers(&s->chain);
	verdict = walk_chain(s, head);
	if (verdict)
		return refuse(s, verdict);
	s->last_avail++;
	return head;
}

static void add_used(struct split *s, uint32_t head, uint32_t length)
{
	uint8_t *at = s->mem + s->used + 4 + 8 * (s->device_used & (s->num - 1));

	store32(at, head);
	store32(at + 4, length);
	s->device_used++;
	if ((uint16_t)(s->device_used - s->signalled_used) < 1)
		s->signalled_used_valid = false;
	store16(s->mem + s->used + 2, s->device_used);
}

static bool signal_needed(struct split *s)
{
	uint16_t old = s->signalled_used, new = s->device_used;
	bool valid = s->signalled_used_valid;

	if (!s->event_idx)
		return !(load16(s->mem + s->avail) & 1);
	s->signalled_used = new;
	s->signalled_used_valid = true;
	if (!valid)
		return true;
	return need_event(load16(s->mem + s->avail + 4 + 2 * s->num), new, old);
}

uint64_t split_bytes(uint32_t num)
{
	return sizeof(struct split) + num * sizeof(struct extra);
}

/* A ring in zeroed memory, its state in `s` (zeroed, split_bytes long); request is (address, length)
 * pairs, the readable ones first. */
void split_init(struct split *s, uint8_t *mem, uint64_t memory, uint64_t desc, uint64_t avail,
		uint64_t used, uint32_t num, int event_idx, int indirect, const uint64_t *request,
		uint32_t out, uint32_t in)
{
	uint32_t i;

	s->mem = mem;
	s->memory = memory;
	s->desc = desc;
	s->avail = avail;
	s->used = used;
	s->num = s->num_free = num;
	s->event_idx = event_idx;
	s->indirect = indirect;
	for (i = 0; i < num; i++) {
		s->extra[i].next = i + 1 < num ? i + 1 : 0;
		s->extra[i].token = EMPTY;
	}
	s->request.out = out;
	s->request.in = in;
	memcpy(s->request.at, request, (out + in) * sizeof(s->request.at[0]));
}

/* add, kick test, fetch, used, signal test, get: so many times; returns a checksum. */
int64_t split_round_trips(struct split *s, uint64_t table, int64_t loops)
{
	int64_t sum = 0, i;

	for (i = 0; i < loops; i++) {
		int head;

		sum += add(s, &s->request, i, table);
		sum += kick_prepare(s);
		head = fetch(s);
		add_used(s, head, 0);
		sum += signal_needed(s);
		sum += get_buf(s);
	}
	return sum;
}
