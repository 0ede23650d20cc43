/* What the generated bindings need of a C library, and no more: see ../memory.c. */
#ifndef C_SPLIT_STRING_H
#define C_SPLIT_STRING_H
#include <stddef.h>
void *memcpy(void *to, const void *from, size_t size);
void *memset(void *to, int byte, size_t size);
int memcmp(const void *one, const void *other, size_t size);
size_t strlen(const char *text);
#endif
