//! Where a target is: the URL that is sent to, the login that stands in it, and what of it may be shown.

use std::fmt;

use http::Uri;
use http::uri::Scheme;
use percent_encoding::percent_decode_str;

/// A URL whose secrets stay in it. It shows itself without user, password and query, and without its path where that is the secret.
#[derive(Clone, PartialEq, Eq)]
pub struct NotifyUrl {
    uri: Uri,
    login: Option<String>,
    shown: String,
}

impl NotifyUrl {
    /// Reads `http[s]://[user[:password]@]host[:port][/path][?query]`; `None` for anything else.
    pub(super) fn read(text: &str, hides_path: bool) -> Option<NotifyUrl> {
        let uri: Uri = text.parse().ok().filter(|_| !text.contains('#'))?;
        let authority = uri.authority()?;
        let (login, host) = authority.as_str().rsplit_once('@').map_or((None, authority.as_str()), |(login, host)| (Some(login), host));
        let has_good_port = authority.port().map_or(host == authority.host(), |port| port.as_u16() > 0);
        let is_http = [&Scheme::HTTP, &Scheme::HTTPS].contains(&uri.scheme()?);
        let is_whole = is_http && has_good_port && !authority.host().is_empty();
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let sent_to = Uri::builder().scheme(uri.scheme()?.clone()).authority(host).path_and_query(path).build().ok();
        let login = login.map(|login| {
            let login = percent_decode_str(login).decode_utf8_lossy().into_owned();
            if login.contains(':') { login } else { format!("{login}:") }
        });
        let shown = show(&uri, host, login.is_some(), hides_path);
        sent_to.filter(|_| is_whole).map(|uri| NotifyUrl { uri, login, shown })
    }

    /// What is sent to, without the login.
    #[must_use]
    pub fn uri(&self) -> &Uri {
        &self.uri
    }

    /// `user:password`, for basic authentication.
    #[must_use]
    pub fn login(&self) -> Option<&str> {
        self.login.as_deref()
    }

    /// Whether it is `https`.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.uri.scheme() == Some(&Scheme::HTTPS)
    }
}

impl fmt::Display for NotifyUrl {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.shown)
    }
}

impl fmt::Debug for NotifyUrl {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "NotifyUrl({})", self.shown)
    }
}

/// A URL that was refused, for the error: what may be a secret in it is left out, and all of it where that cannot be told.
pub(super) fn presentable(text: &str, hides_path: bool) -> String {
    let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
    if let Ok(uri) = text.parse::<Uri>()
        && let Some(authority) = uri.authority()
        && uri.scheme().is_some()
        // One elsewhere may be the end of a password with a / or # in it.
        && text.matches('@').count() == authority.as_str().matches('@').count()
    {
        let (login, host) = authority.as_str().rsplit_once('@').unwrap_or(("", authority.as_str()));
        return show(&uri, host, !login.is_empty(), hides_path);
    }
    if hides_path || rest.contains(['@', '?', '#']) {
        let is_word = !scheme.is_empty() && scheme.bytes().all(|byte| byte.is_ascii_alphabetic());
        return if is_word { format!("{scheme}://***") } else { "***".to_owned() };
    }
    text.to_owned()
}

fn show(uri: &Uri, host: &str, has_login: bool, hides_path: bool) -> String {
    let scheme = uri.scheme_str().unwrap_or_default();
    let login = if has_login { "***@" } else { "" };
    let path = if hides_path && uri.path().len() > 1 { "/***" } else { uri.path() };
    let query = if uri.query().is_some() { "?***" } else { "" };
    format!("{scheme}://{login}{host}{path}{query}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> NotifyUrl {
        NotifyUrl::read(text, false).unwrap()
    }

    #[test]
    fn the_login_is_taken_out_of_what_is_sent_to_and_out_of_what_is_shown() {
        let url = read("https://ann:s3cr%40t@hooks.example.com:8443/a/b?key=s3cret");
        assert_eq!(url.uri(), "https://hooks.example.com:8443/a/b?key=s3cret");
        assert_eq!(url.login(), Some("ann:s3cr@t"));
        assert_eq!(url.to_string(), "https://***@hooks.example.com:8443/a/b?***");
        assert!(url.is_tls() && !format!("{url:?}").contains("s3cr"));
        assert_eq!(read("http://ann@[::1]:80").login(), Some("ann:"));
        assert_eq!(read("http://[::1]:80").to_string(), "http://[::1]:80/");
    }

    #[test]
    fn a_path_that_is_the_secret_is_not_shown() {
        let url = NotifyUrl::read("https://hooks.slack.com/services/T0/B0/s3cret", true).unwrap();
        assert_eq!(url.to_string(), "https://hooks.slack.com/***");
        assert_eq!(url.uri().path(), "/services/T0/B0/s3cret");
        assert_eq!(presentable("hooks.slack.com/services/T0/B0/s3cret", true), "***");
    }

    #[test]
    fn what_is_no_url_of_a_target_is_refused() {
        for bad in [
            "",
            "/path",
            "hooks.example.com",
            "ftp://h/",
            "redis://h",
            "http://",
            "http:///p",
            "http://h:0/",
            "https://h/p#f",
            "http://h/a b",
            "https://ann:pa/ss@h/",
        ] {
            assert_eq!(NotifyUrl::read(bad, false), None, "{bad}");
        }
    }

    proptest! {
        /// Whatever stands around it, what comes before the last @ or after a ? is not repeated.
        #[test]
        fn a_refused_url_repeats_no_password(scheme in "(https?|ftp|[a-z+]{0,4})", before in "[a-z:/ %]{0,4}", after in "[a-z:/ #]{0,4}") {
            let text = format!("{scheme}://{before}s3cret{after}@host/p");
            prop_assert!(!presentable(&text, false).contains("s3cret"), "{}", text);
            let text = format!("{scheme}://{before}@host/p{after}?k=s3cret");
            prop_assert!(!presentable(&text, false).contains("s3cret"), "{}", text);
        }
    }
}
