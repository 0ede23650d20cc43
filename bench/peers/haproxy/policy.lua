-- Users who ask for the beta get the canary, and a tenth of the others, by a hash of their id.
core.register_fetches("pool", function(txn)
    if txn.sf:req_hdr("x-beta") == "1" then
        return "canary"
    end
    local user = txn.sf:req_hdr("x-user-id")
    if user == "" then
        user = txn.sf:src()
    end
    if txn.c:xxh32(user) % 100 < 10 then
        return "canary"
    end
    return "blue"
end)
