/* What the generated bindings need of a C library, and no more: see ../memory.c. */
#ifndef C_SPLIT_STDLIB_H
#define C_SPLIT_STDLIB_H
#include <stddef.h>
void *malloc(size_t size);
void *realloc(void *old, size_t size);
void *aligned_alloc(size_t alignment, size_t size);
void free(void *memory);
_Noreturn void abort(void);
#endif
