/* A split policy in C: British users go to the candidate's pool, everybody else to the live one. The same as
 * plugins/examples/hello-split in Rust. The bindings (split_policy.h) are made of wit/ when it is built. */
#include "memory.h"
#include "split_policy.h"
#include <string.h>

static uint32_t live;
static uint32_t candidate;

/* What the policy wants to see: one position, one header. The host reads it after `configure` has returned, so it is static. */
static switchback_policy_split_types_salt_t salts[1];
static switchback_policy_split_types_field_t fields[1];
static char header[] = "accept-language";

bool exports_switchback_policy_split_configure(
    exports_switchback_policy_split_snapshot_t *snapshot,
    exports_switchback_policy_split_wanted_t *wanted,
    split_policy_string_t *error) {
    (void)error;
    live = snapshot->live;
    candidate = snapshot->candidate.is_some ? snapshot->candidate.val.pool : live;
    salts[0].tag = SWITCHBACK_POLICY_SPLIT_TYPES_SALT_ROLLOUT;
    fields[0].tag = SWITCHBACK_POLICY_SPLIT_TYPES_FIELD_HEADER;
    fields[0].val.header.ptr = (uint8_t *)header;
    fields[0].val.header.len = sizeof header - 1;
    wanted->salts.ptr = salts;
    wanted->salts.len = 1;
    wanted->fields.ptr = fields;
    wanted->fields.len = 1;
    arena_is_free();
    return true;
}

static void decide(bool is_british, exports_switchback_policy_split_decision_t *decision) {
    decision->pool = is_british ? candidate : live;
    decision->reason = is_british ? SWITCHBACK_POLICY_SPLIT_TYPES_REASON_RULE : SWITCHBACK_POLICY_SPLIT_TYPES_REASON_LIVE;
    decision->arm.is_some = false;
}

/* Not asked, as a field is wanted; it answers as for a query without that field. */
void exports_switchback_policy_split_route(uint32_t position, exports_switchback_policy_split_decision_t *decision) {
    (void)position;
    decide(false, decision);
}

void exports_switchback_policy_split_route_fields(
    split_policy_list_u32_t *positions,
    split_policy_list_option_string_t *values,
    exports_switchback_policy_split_decision_t *decision) {
    static const char british[] = "en-GB";
    const size_t length = sizeof british - 1;
    (void)positions;
    bool is_british = values->len == 1 && values->ptr[0].is_some && values->ptr[0].val.len >= length &&
                      memcmp(values->ptr[0].val.ptr, british, length) == 0;
    decide(is_british, decision);
    arena_is_free();
}
