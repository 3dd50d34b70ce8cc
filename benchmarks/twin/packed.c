/* The C twin of sim/vring_packed.py with QEMU's device; see ring.h. */
#include "ring.h"

struct extra {
	uint16_t next, last, count; /* driver, by buffer id */
	uint16_t in_flight; /* device, by buffer id: descriptors of the buffer it has */
	int64_t token;
};

struct packed {
	uint8_t *mem;
	uint64_t memory, desc, driver_event, device_event;
	uint32_t num;
	bool event_idx, indirect;
	struct buffers request, chain;
	/* driver */
	uint32_t free_head, num_free, num_added, next_avail, last_used;
	bool avail_wrap, used_wrap;
	uint16_t event_flags;
	uint32_t used_length;
	bool broken;
	int verdict, verdicts[VERDICTS];
	/* device */
	uint32_t last_avail, used_idx, inuse;
	bool device_avail_wrap, device_used_wrap;
	uint16_t signalled_used;
	bool signalled_used_valid, device_broken;
	int device_verdict, device_verdicts[VERDICTS];
	struct extra extra[];
};

static uint16_t available(bool wrap)
{
	return wrap ? F_AVAIL : F_USED;
}

static void write_body(uint8_t *at, uint64_t address, uint32_t length, uint16_t id)
{
	store64(at, address);
	store32(at + 8, length);
	store16(at + 12, id);
}

static void step_avail(struct packed *p, uint32_t count)
{
	p->next_avail += count;
	if (p->next_avail >= p->num) {
		p->next_avail -= p->num;
		p->avail_wrap ^= 1;
	}
}

static void add_indirect(struct packed *p, const struct buffers *b, uint64_t table, uint16_t id)
{
	uint32_t total = b->out + b->in, i;
	uint8_t *head = p->mem + p->desc + 16 * p->next_avail;

	for (i = 0; i < total; i++) {
		uint8_t *at = p->mem + table + 16 * i;

		store64(at, b->at[i].address);
		store32(at + 8, b->at[i].length);
		store16(at + 14, i < b->out ? 0 : F_WRITE);
	}
	write_body(head, table, 16 * total, id);
	store16(head + 14, F_INDIRECT | available(p->avail_wrap));
	step_avail(p, 1);
}

static void add_direct(struct packed *p, const struct buffers *b, uint16_t id)
{
	uint32_t total = b->out + b->in, index = p->next_avail, i;
	uint8_t *head = p->mem + p->desc + 16 * index;
	bool wrap = p->avail_wrap;
	uint16_t head_flags = 0;

	for (i = 0; i < total; i++) {
		uint8_t *at = p->mem + p->desc + 16 * index;
		uint16_t flags = (i < b->out ? 0 : F_WRITE) | (i < total - 1 ? F_NEXT : 0) |
				 available(wrap);

		write_body(at, b->at[i].address, b->at[i].length, id);
		if (i == 0)
			head_flags = flags;
		else
			store16(at + 14, flags);
		if (++index == p->num) {
			index = 0;
			wrap ^= 1;
		}
	}
	store16(head + 14, head_flags);
	step_avail(p, total);
}

static int add(struct packed *p, const struct buffers *b, int64_t token, uint64_t table)
{
	uint32_t total = b->out + b->in, needed, id, last, i;
	bool indirect;

	if (p->broken)
		return EIO_;
	indirect = p->indirect && total > 1 && p->num_free > 0 && table;
	needed = indirect ? 1 : total;
	if (p->num_free < needed)
		return ENOSPC_;
	id = last = p->free_head;
	for (i = 1; i < needed; i++)
		last = p->extra[last].next;
	p->free_head = p->extra[last].next;
	p->extra[id].last = last;
	p->extra[id].token = token;
	p->extra[id].count = needed;
	if (indirect)
		add_indirect(p, b, table, id);
	else
		add_direct(p, b, id);
	p->num_free -= needed;
	p->num_added += needed;
	return id;
}

static bool kick_prepare(struct packed *p)
{
	uint16_t new = p->next_avail, old = new - p->num_added, event;
	uint32_t word;

	p->num_added = 0;
	if (p->broken)
		return false;
	word = load32(p->mem + p->device_event);
	if (word >> 16 != 2)
		return word >> 16 != 1;
	event = word & 0x7fff;
	if ((word >> 15 & 1) != p->avail_wrap)
		event -= p->num;
	return need_event(event, new, old);
}

static int64_t bad_ring(struct packed *p, int verdict)
{
	p->verdict = verdict;
	p->verdicts[verdict]++;
	p->broken = true;
	return EMPTY;
}

static int64_t get_buf(struct packed *p)
{
	const uint8_t *at = p->mem + p->desc + 16 * p->last_used;
	uint16_t flags = load16(at + 14);
	bool used = flags & F_USED, avail = flags & F_AVAIL;
	uint32_t id;
	int64_t token;

	if (p->broken || avail != used || used != p->used_wrap)
		return EMPTY;
	p->used_length = load32(at + 8);
	id = load16(at + 12);
	if (id >= p->num)
		return bad_ring(p, USED_ID_RANGE);
	token = p->extra[id].token;
	if (token < 0)
		return bad_ring(p, USED_NOT_A_HEAD);
	p->extra[id].token = EMPTY;
	p->num_free += p->extra[id].count;
	p->extra[p->extra[id].last].next = p->free_head;
	p->free_head = id;
	p->last_used += p->extra[id].count;
	if (p->last_used >= p->num) {
		p->last_used -= p->num;
		p->used_wrap ^= 1;
	}
	if (p->event_flags == 2)
		store16(p->mem + p->driver_event, p->last_used | p->used_wrap << 15);
	return token;
}

static int walk_table(struct packed *p, uint64_t table, uint32_t bytes)
{
	uint32_t i;

	if (bytes == 0 || bytes % 16)
		return BAD_TABLE_LENGTH;
	if (!in_memory(p->memory, (int64_t)table, bytes))
		return BAD_TABLE_ADDRESS;
	for (i = 0; i < bytes / 16; i++) {
		const uint8_t *at = p->mem + table + 16 * i;
		int verdict = take_buffer(&p->chain, p->memory, true, load64(at), load32(at + 8),
					  load16(at + 14));

		if (verdict)
			return verdict;
	}
	return SOUND;
}

static int refuse(struct packed *p, int verdict)
{
	p->device_verdict = verdict;
	p->device_verdicts[verdict]++;
	p->device_broken = true;
	return EINVAL_;
}

static int fetch(struct packed *p)
{
	uint32_t index = p->last_avail, count = 0, id;
	uint16_t flags;

	if (p->device_broken)
		return EMPTY;
	flags = load16(p->mem + p->desc + 16 * index + 14);
	if (!(flags & F_USED) == !(flags & F_AVAIL) || !(flags & F_AVAIL) == p->device_avail_wrap)
		return EMPTY;
	if (p->inuse >= p->num)
		return refuse(p, TOO_MANY_IN_FLIGHT);
	clear_buffers(&p->chain);
	for (;;) {
		const uint8_t *at = p->mem + p->desc + 16 * index;
		uint64_t address = load64(at);
		uint32_t length = load32(at + 8);
		int verdict;

		flags = load16(at + 14);
		id = load16(at + 12);
		count++;
		if (count == 1 && flags & F_INDIRECT) {
			verdict = walk_table(p, address, length);
			flags = 0;
		} else {
			verdict = take_buffer(&p->chain, p->memory, true, address, length, flags);
		}
		if (verdict)
			return refuse(p, verdict);
		if (count > p->num)
			return refuse(p, LOOP);
		if (!(flags & F_NEXT))
			break;
		if (++index == p->num)
			index = 0;
	}
	if (id >= p->num)
		return refuse(p, BAD_BUFFER_ID);
	p->extra[id].in_flight = count;
	p->inuse += count;
	p->last_avail += count;
	if (p->last_avail >= p->num) {
		p->last_avail -= p->num;
		p->device_avail_wrap ^= 1;
	}
	return id;
}

static void add_used(struct packed *p, uint32_t id, uint32_t length)
{
	uint8_t *at = p->mem + p->desc + 16 * p->used_idx;
	uint32_t count = p->extra[id].in_flight;

	if (count == 0)
		return;
	p->extra[id].in_flight = 0;
	store16(at + 12, id);
	store32(at + 8, length);
	store16(at + 14, p->device_used_wrap ? F_AVAIL | F_USED : 0);
	p->inuse -= count;
	p->used_idx += count;
	if (p->used_idx >= p->num) {
		p->used_idx -= p->num;
		p->device_used_wrap ^= 1;
		p->signalled_used_valid = false;
	}
}

static bool signal_needed(struct packed *p)
{
	uint16_t flags = load16(p->mem + p->driver_event + 2);
	uint16_t off_wrap = load16(p->mem + p->driver_event);
	uint16_t old = p->signalled_used, new = p->used_idx, event;
	bool valid = p->signalled_used_valid;

	p->signalled_used = new;
	p->signalled_used_valid = true;
	if (flags == 1)
		return false;
	if (flags == 0 || !valid)
		return true;
	event = off_wrap & 0x7fff;
	if (off_wrap >> 15 != p->device_used_wrap)
		event -= p->num;
	return need_event(event, new, old);
}

uint64_t packed_bytes(uint32_t num)
{
	return sizeof(struct packed) + num * sizeof(struct extra);
}

/* A ring in zeroed memory, its state in `p` (zeroed, packed_bytes long); request is (address,
 * length) pairs, the readable ones first. With EVENT_IDX both sides ask by event index from the
 * start on, as after their first enable. */
void packed_init(struct packed *p, uint8_t *mem, uint64_t memory, uint64_t desc,
		 uint64_t driver_event, uint64_t device_event, uint32_t num, int event_idx,
		 int indirect, const uint64_t *request, uint32_t out, uint32_t in)
{
	uint32_t i;

	p->mem = mem;
	p->memory = memory;
	p->desc = desc;
	p->driver_event = driver_event;
	p->device_event = device_event;
	p->num = p->num_free = num;
	p->event_idx = event_idx;
	p->indirect = indirect;
	p->avail_wrap = p->used_wrap = p->device_avail_wrap = p->device_used_wrap = true;
	p->event_flags = event_idx ? 2 : 0;
	for (i = 0; i < num; i++) {
		p->extra[i].next = i + 1 < num ? i + 1 : 0;
		p->extra[i].token = EMPTY;
	}
	p->request.out = out;
	p->request.in = in;
	memcpy(p->request.at, request, (out + in) * sizeof(p->request.at[0]));
}

/* add, kick test, fetch, used, signal test, get: so many times; returns a checksum. */
int64_t packed_round_trips(struct packed *p, uint64_t table, int64_t loops)
{
	int64_t sum = 0, i;

	for (i = 0; i < loops; i++) {
		int id;

		sum += add(p, &p->request, i, table);
		sum += kick_prepare(p);
		id = fetch(p);
		add_used(p, id, 0);
		sum += signal_needed(p);
		sum += get_buf(p);
	}
	return sum;
}
