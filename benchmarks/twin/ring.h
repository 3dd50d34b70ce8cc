/* What the two C twins share: guest memory, the buffer list, the checks of a descriptor.
 *
 * The twins do what sim/vring_split.py and sim/vring_packed.py do, line by line, with the types a C
 * programmer would choose: the yardstick of benchmarks/ring.py. A driver with Linux's free list, a
 * device that trusts nothing; INDIRECT_DESC and EVENT_IDX each on or off; no IN_ORDER.
 */
#ifndef RING_H
#define RING_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

enum { F_NEXT = 1, F_WRITE = 2, F_INDIRECT = 4, F_AVAIL = 0x80, F_USED = 0x8000 };
enum { EMPTY = -1, EIO_ = -5, EINVAL_ = -22, ENOSPC_ = -28, IOV_MAX_ = 1024 };
enum verdict {
	SOUND, BAD_AVAIL_INDEX, BAD_HEAD, BAD_NEXT, LOOP, BAD_ORDER, NESTED_TABLE, BAD_TABLE_LENGTH,
	TABLE_TOO_LONG, BAD_TABLE_ADDRESS, BAD_BUFFER_ADDRESS, TOO_MANY_BUFFERS, ZERO_LENGTH,
	TOO_MANY_IN_FLIGHT, BAD_BUFFER_ID, USED_ID_RANGE, USED_NOT_A_HEAD, VERDICTS
};

struct buffer { uint64_t address, length; };
struct buffers {
	uint32_t out, in;
	uint64_t out_bytes, in_bytes;
	struct buffer at[IOV_MAX_];
};

static inline uint16_t load16(const uint8_t *m) { uint16_t x; memcpy(&x, m, 2); return x; }
static inline uint32_t load32(const uint8_t *m) { uint32_t x; memcpy(&x, m, 4); return x; }
static inline uint64_t load64(const uint8_t *m) { uint64_t x; memcpy(&x, m, 8); return x; }
static inline void store16(uint8_t *m, uint16_t x) { memcpy(m, &x, 2); }
static inline void store32(uint8_t *m, uint32_t x) { memcpy(m, &x, 4); }
static inline void store64(uint8_t *m, uint64_t x) { memcpy(m, &x, 8); }

static inline bool need_event(uint16_t event, uint16_t new, uint16_t old)
{
	return (uint16_t)(new - event - 1) < (uint16_t)(new - old);
}

static inline bool in_memory(uint64_t size, int64_t address, uint64_t length)
{
	return address >= 0 && (int64_t)length <= (int64_t)(size - (uint64_t)address);
}

/* One descriptor into the buffer list; `strict` is QEMU's order of checks. */
static inline int take_buffer(struct buffers *b, uint64_t memory, bool strict,
			      uint64_t address, uint32_t length, uint16_t flags)
{
	uint32_t count = b->out + b->in;
	bool write = flags & F_WRITE;
	bool misplaced = !write && b->in;

	if (strict) {
		if (misplaced)
			return BAD_ORDER;
		if (length == 0)
			return ZERO_LENGTH;
	}
	if (length) {
		if (!in_memory(memory, (int64_t)address, length))
			return BAD_BUFFER_ADDRESS;
		if (count >= IOV_MAX_)
			return TOO_MANY_BUFFERS;
	}
	if (misplaced)
		return BAD_ORDER;
	if (length == 0)
		return SOUND;
	if (write) {
		b->in++;
		b->in_bytes += length;
	} else {
		b->out++;
		b->out_bytes += length;
	}
	b->at[count].address = address;
	b->at[count].length = length;
	return SOUND;
}

static inline void clear_buffers(struct buffers *b)
{
	b->out = b->in = 0;
	b->out_bytes = b->in_bytes = 0;
}

#endif
