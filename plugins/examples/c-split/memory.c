/* A C library in thirty lines. What a call allocates (its arguments) is gone when the next call begins to allocate after
 * `arena_is_free`: nothing is freed one by one, and nothing grows. */
#include "memory.h"
#include <stdlib.h>
#include <string.h>

#define ARENA_BYTES (1 << 20)

static _Alignas(16) unsigned char arena[ARENA_BYTES];
static size_t used;
static int is_free;

void arena_is_free(void) { is_free = 1; }

void *malloc(size_t size) {
    if (is_free) {
        used = 0;
        is_free = 0;
    }
    size_t wanted = (size + 15) & ~(size_t)15;
    if (size > ARENA_BYTES || wanted > ARENA_BYTES - used) {
        abort();
    }
    void *memory = arena + used;
    used += wanted;
    return memory;
}

/* The old size is not known, and the arena's end bounds what is copied. The bindings only ever allocate. */
void *realloc(void *old, size_t size) {
    unsigned char *memory = malloc(size);
    if (old != 0) {
        size_t most = (size_t)(arena + ARENA_BYTES - (unsigned char *)old);
        memcpy(memory, old, size < most ? size : most);
    }
    return memory;
}

void *aligned_alloc(size_t alignment, size_t size) {
    if (alignment > 16) {
        abort();
    }
    return malloc(size);
}

void free(void *memory) { (void)memory; }

_Noreturn void abort(void) { __builtin_trap(); }

void *memcpy(void *to, const void *from, size_t size) {
    unsigned char *out = to;
    const unsigned char *in = from;
    while (size-- > 0) {
        *out++ = *in++;
    }
    return to;
}

void *memset(void *to, int byte, size_t size) {
    unsigned char *out = to;
    while (size-- > 0) {
        *out++ = (unsigned char)byte;
    }
    return to;
}

int memcmp(const void *one, const void *other, size_t size) {
    const unsigned char *a = one;
    const unsigned char *b = other;
    for (; size > 0; size--, a++, b++) {
        if (*a != *b) {
            return *a < *b ? -1 : 1;
        }
    }
    return 0;
}

size_t strlen(const char *text) {
    size_t length = 0;
    while (text[length] != 0) {
        length++;
    }
    return length;
}
