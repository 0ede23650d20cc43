//! The very bytes of a plugin, by digest: so that what judged can be taken elsewhere, and judge there.

use super::folder;
use super::policies::{Policies, SHIPPED};
use super::{admission, status::PluginStatus};

impl Policies {
    /// The plugin of this SHA-256, wherever it is; `None` when it is nowhere.
    pub async fn component(&self, digest: &str) -> Option<Vec<u8>> {
        let (workshop, digest) = (self.workshop.clone(), digest.to_owned());
        let is_file = |plugin: &PluginStatus| plugin.source != "shipped";
        let names: Vec<_> = self.plugins().into_iter().filter(is_file).map(|plugin| plugin.name).collect();
        let dir = self.dir.clone();
        let found = tokio::task::spawn_blocking(move || {
            let is_it = |bytes: &[u8]| admission::digest(bytes) == digest;
            if let Some((_, bytes)) = SHIPPED.iter().find(|(_, bytes)| is_it(bytes)) {
                return Some(bytes.to_vec());
            }
            let is_digest = digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit());
            let kept = workshop.kept.as_ref().filter(|_| is_digest);
            kept.and_then(|kept| kept.load(&digest, workshop.terms.file_bytes)).or_else(|| {
                let read = |name: String| folder::read(&dir.join(format!("{name}.wasm")), workshop.terms.file_bytes).ok().flatten();
                names.into_iter().filter_map(read).find(|bytes| is_it(bytes))
            })
        });
        found.await.ok().flatten()
    }
}
