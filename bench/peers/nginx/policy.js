// Users who ask for the beta get the canary, and a tenth of the others, by a hash (FNV-1a) of their id.
function pool(r) {
    if (r.headersIn['x-beta'] === '1') {
        return 'canary';
    }
    const user = r.headersIn['x-user-id'] || r.remoteAddress;
    let hash = 0x811c9dc5;
    for (let i = 0; i < user.length; i++) {
        hash = Math.imul(hash ^ user.charCodeAt(i), 0x01000193);
    }
    return (hash >>> 0) % 100 < 10 ? 'canary' : 'blue';
}

export default { pool };
