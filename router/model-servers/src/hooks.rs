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
    pub(crate) report: EndpointReport,
}

impl Hooked<'_> {
    /// Loads, and asks until it is ready.
    pub(crate) async fn load(&mut self) -> Result<(), Trouble> {
        let (began, deadline) = (Instant::now(), after(self.settings.load_timeout));
        let ready = self.hooks.ready.as_ref();
        if let Some(ready) = ready.filter(|ready| ready.names_version()) {
            self.report.was_ready = self.is_ready(ready).await?.is_ok();
        }
        if !self.report.was_ready {
            self.caller.go_on()?;
            self.is_touched = true;
            match self.post(&self.hooks.load, left(deadline)).await {
                // It may still come about, and there is somebody to ask.
                Err(trouble) if trouble.is_timeout && ready.is_some() => {}
                done => done?,
            }
            if let Some(ready) = ready {
                self.wait_ready(ready, deadline).await?;
            }
        }
        self.report.load_ms = millis(began.elapsed());
        Ok(())
    }

    /// Calls the unload hook, where there is one.
    pub(crate) async fn unload(&mut self) -> Result<(), Trouble> {
        match &self.hooks.unload {
            Some(unload) => self.post(unload, self.settings.load_timeout).await,
            None => Err(Trouble::refused("there is no hook that unloads")),
        }
    }

    async fn wait_ready(&self, ready: &Template, deadline: Instant) -> Result<(), Trouble> {
        loop {
            let last = match self.is_ready(ready).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(no)) => no,
                Err(trouble) if trouble.is_away() => trouble,
                Err(trouble) => return Err(trouble),
            };
            if !self.caller.pause(self.settings.poll_every, deadline).await? {
                let late = format!("version {} is not ready after {}", self.wanted.version, shown(self.settings.load_timeout));
                return Err(Trouble { why: format!("{late}: {}", last.why), ..last });
            }
        }
    }

    /// Yes, or the no that it was.
    async fn is_ready(&self, ready: &Template) -> Result<Result<(), Trouble>, Trouble> {
        let call = self.call(Method::GET, ready, self.settings.request_timeout);
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

    async fn post(&self, template: &Template, timeout: Duration) -> Result<(), Trouble> {
        let call = self.call(Method::POST, template, timeout);
        self.caller.ask(&Call { url: &call.0, body: Some(b"{}".to_vec()), ..call.1 }).await.map(|_| ())
    }

    fn call(&self, method: Method, template: &Template, timeout: Duration) -> (String, Call<'static>) {
        let Wanted { version, pool, route, .. } = *self.wanted;
        let url = template.fill(&Filling { endpoint: &self.report.endpoint, model: &self.settings.model, version, pool, route });
        let what = format!("{method} {url}");
        (url, Call { method, url: "", what, body: None, timeout })
    }
}
