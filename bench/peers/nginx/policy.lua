-- Users who ask for the beta get the canary, and a tenth of the others, by a hash of their id.
local crc32, var = ngx.crc32_short, ngx.var
local policy = {}

function policy.pool()
    if var.http_x_beta == "1" then
        return "canary"
    end
    local user = var.http_x_user_id or var.remote_addr
    if crc32(user) % 100 < 10 then
        return "canary"
    end
    return "blue"
end

return policy
