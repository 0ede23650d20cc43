//! Servers that have URLs to load, to ask whether it is ready, and to unload.

use std::time::Duration;

use reqwest::Method;
use tokio::time::Instant;

use crate::call::{Call, Caller, after, is_yes, left, meaning, shown};
use crate::fault::Trouble;
use crate::server::millis;
use crate::settings::{EndpointReport, Hooks, Settings, Wanted};
use crate::template::{Filling, Template};

/// One endpoint.
#[derive(Debug)]
pub(crate) struct Hooked<'a> {
    pub(crate) caller: Caller<'a>,
    pub(crate) settings: &'a Settings,
    pub(crate) hooks: &'a Hooks,
    pub(crate) wanted: &'a Wanted<'a>,
    /// The load was called.
    pub(crate) is_touched: bool,
    /// The unload of the version before was called.
    pub(crate) is_dropped: bool,
    pub(crate) report: EndpointReport,
}

impl<'a> Hooked<'a> {
    /// Loads, and asks until it is ready. What is ready is loaded all the same where nothing unloads the version before: then a load is the
    /// only way to say which one is to be served.
    pub(crate) async fn load(&mut self) -> Result<(), Trouble> {
        let (began, version) = (Instant::now(), self.wanted.version);
        let ready = self.hooks.ready.as_ref().filter(|ready| ready.names_version() && self.unload_of_one().is_some());
        if let Some(ready) = ready {
            self.report.was_ready = self.is_ready(ready, version).await?.is_ok();
        }
        if !self.report.was_ready {
            self.caller.go_on()?;
            self.is_touched = true;
            self.load_version(version).await?;
        }
        self.report.load_ms = millis(began.elapsed());
        Ok(())
    }

    /// Unloads the version before, where there is a hook for that, and sees that this one is still ready. A no to the unload is told in the
    /// report.
    pub(crate) async fn commit(&mut self) -> Result<(), Trouble> {
        let (Some(previous), Some(unload)) = (self.previous(), self.unload_of_one()) else { return Ok(()) };
        self.caller.go_on()?;
        self.is_dropped = true;
        if let Err(trouble) = self.drop_version(unload, previous).await {
            self.report.beside = vec![previous];
            self.report.why_beside = Some(trouble.why);
        }
        match &self.hooks.ready {
            Some(ready) if ready.names_version() => self.wait_ready(ready, self.wanted.version, after(self.settings.load_timeout)).await,
            _ => Ok(()),
        }
    }

    /// Whether anything was changed that can be undone.
    pub(crate) fn is_changed(&self) -> bool {
        self.is_touched || self.is_dropped
    }

    /// Takes back what was done: the version is unloaded, and the one before it loaded, where it went or where a load alone says which is served.
    pub(crate) async fn undo(&mut self) -> Result<(), Trouble> {
        let is_known = self.wanted.previous.is_some();
        let unloaded = if self.is_touched && (self.hooks.unload.is_some() || !is_known) { self.unload().await } else { Ok(()) };
        let loaded = match self.previous() {
            Some(previous) if self.is_dropped || self.unload_of_one().is_none() => self.load_version(previous).await,
            _ => Ok(()),
        };
        unloaded.and(loaded)
    }

    /// Calls the unload hook, where there is one.
    pub(crate) async fn unload(&mut self) -> Result<(), Trouble> {
        match &self.hooks.unload {
            Some(unload) => self.post(unload, self.wanted.version, self.settings.load_timeout).await,
            None => Err(Trouble::refused("there is no hook that unloads")),
        }
    }

    /// Another version, which the pool ran before.
    fn previous(&self) -> Option<u64> {
        self.wanted.previous.filter(|previous| *previous != self.wanted.version)
    }

    /// The hook that unloads one version and leaves the others.
    fn unload_of_one(&self) -> Option<&'a Template> {
        self.hooks.unload.as_ref().filter(|unload| unload.names_version())
    }

    async fn load_version(&self, version: u64) -> Result<(), Trouble> {
        let (ready, deadline) = (self.hooks.ready.as_ref(), after(self.settings.load_timeout));
        match self.post(&self.hooks.load, version, left(deadline)).await {
            // It may still come about, and there is somebody to ask.
            Err(trouble) if trouble.is_timeout && ready.is_some() => {}
            done => done?,
        }
        match ready {
            Some(ready) => self.wait_ready(ready, version, deadline).await,
            None => Ok(()),
        }
    }

    /// A server that does not have it is as good as one that lets go of it.
    async fn drop_version(&self, unload: &Template, version: u64) -> Result<(), Trouble> {
        let (url, call) = self.call(Method::POST, unload, version, self.settings.load_timeout);
        let call = Call { url: &url, body: Some(b"{}".to_vec()), ..call };
        let answer = self.caller.send(&call).await?;
        if is_yes(answer.status) || matches!(answer.status, 404 | 410) { Ok(()) } else { Err(meaning(&call.what, &answer)) }
    }

    async fn wait_ready(&self, ready: &Template, version: u64, deadline: Instant) -> Result<(), Trouble> {
        loop {
            let last = match self.is_ready(ready, version).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(no)) => no,
                Err(trouble) if trouble.is_away() => trouble,
                Err(trouble) => return Err(trouble),
            };
            if !self.caller.pause(self.settings.poll_every, deadline).await? {
                let late = format!("version {version} is not ready after {}", shown(self.settings.load_timeout));
                return Err(Trouble { why: format!("{late}: {}", last.why), ..last });
            }
        }
    }

    /// Yes, or the no that it was.
    async fn is_ready(&self, ready: &Template, version: u64) -> Result<Result<(), Trouble>, Trouble> {
        let call = self.call(Method::GET, ready, version, self.settings.request_timeout);
        let answer = match self.caller.send(&Call { url: &call.0, ..call.1 }).await {
            Err(trouble) if trouble.is_away() => return self.caller.go_on().map(|()| Err(trouble)),
            answer => answer?,
        };
        let what = format!("GET {}", call.0);
        match answer.status {
            status if is_yes(status) => Ok(Ok(())),
            300..400 => Err(meaning(&what, &answer)),
            _ => Ok(Err(meaning(&what, &answer))),
        }
    }

    async fn post(&self, template: &Template, version: u64, timeout: Duration) -> Result<(), Trouble> {
        let call = self.call(Method::POST, template, version, timeout);
        self.caller.ask(&Call { url: &call.0, body: Some(b"{}".to_vec()), ..call.1 }).await.map(|_| ())
    }

    fn call(&self, method: Method, template: &Template, version: u64, timeout: Duration) -> (String, Call<'static>) {
        let Wanted { pool, route, .. } = *self.wanted;
        let url = template.fill(&Filling { endpoint: &self.report.endpoint, model: &self.settings.model, version, pool, route });
        let what = format!("{method} {url}");
        (url, Call { method, url: "", what, body: None, timeout })
    }
}
