/* Memory for the arguments of a call. */
#ifndef C_SPLIT_MEMORY_H
#define C_SPLIT_MEMORY_H
/* What was allocated until here is no longer needed: said at the end of every call. */
void arena_is_free(void);
#endif
