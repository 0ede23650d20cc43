//! URLs with names in braces: what an HTTP hook is called by.

use std::fmt;
use std::str::FromStr;

/// The longest one.
const CHARS: usize = 2_048;
/// What may be in braces.
const NAMES: &str = "{endpoint}, {host}, {hostname}, {model}, {version}, {pool}, {route}";

/// A URL in which `{endpoint}` (`http://host:port`), `{host}` (`host:port`), `{hostname}` (`host`), `{model}`, `{version}`, `{pool}` and `{route}`
/// are filled in: `{endpoint}/admin/load?model={model}&version={version}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    text: String,
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Plain(String),
    Endpoint,
    Host,
    Hostname,
    Model,
    Version,
    Pool,
    Route,
}

/// What is filled in.
#[derive(Debug, Clone, Copy)]
pub struct Filling<'a> {
    /// `http://host:port`, with no slash at its end.
    pub endpoint: &'a str,
    /// The server's name of the model.
    pub model: &'a str,
    /// Its version.
    pub version: u64,
    /// The pool's name.
    pub pool: &'a str,
    /// The route's name.
    pub route: &'a str,
}

impl Template {
    /// The URL for one endpoint and version. What is filled in is escaped, except for the endpoint.
    #[must_use]
    pub fn fill(&self, filling: &Filling<'_>) -> String {
        let host = filling.endpoint.split_once("://").map_or(filling.endpoint, |(_, host)| host);
        let mut url = String::new();
        for part in &self.parts {
            match part {
                Part::Plain(text) => url.push_str(text),
                Part::Endpoint => url.push_str(filling.endpoint),
                Part::Host => url.push_str(host),
                Part::Hostname => url.push_str(host.rsplit_once(':').map_or(host, |(name, _)| name)),
                Part::Model => escape(filling.model, &mut url),
                Part::Version => url.push_str(&filling.version.to_string()),
                Part::Pool => escape(filling.pool, &mut url),
                Part::Route => escape(filling.route, &mut url),
            }
        }
        url
    }

    /// Whether the URL is another one for another version.
    #[must_use]
    pub fn names_version(&self) -> bool {
        self.parts.contains(&Part::Version)
    }
}

impl fmt::Display for Template {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.text)
    }
}

impl FromStr for Template {
    type Err = String;

    /// Reads one; the error says what is wrong and what is allowed.
    fn from_str(text: &str) -> Result<Template, String> {
        if !(1..=CHARS).contains(&text.len()) {
            return Err(format!("{} bytes; must be 1 to {CHARS}", text.len()));
        }
        if let Some(letter) = text.chars().find(|letter| letter.is_whitespace() || letter.is_control() || !letter.is_ascii()) {
            return Err(format!("{letter:?} cannot be in a URL: write it as %xx"));
        }
        let template = Template { text: text.to_owned(), parts: parts(text)? };
        let filling = Filling { endpoint: "http://127.0.0.1:1", model: "m", version: 1, pool: "p", route: "r" };
        let filled = template.fill(&filling);
        let url =
            reqwest::Url::parse(&filled).map_err(|error| format!("with values filled in it is `{filled}`, which is no URL: {error}"))?;
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
            return Err(format!("with values filled in it is `{filled}`; must begin with http://, https:// or {{endpoint}}"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err("a user or password in the URL: would be shown in messages, so it is not allowed".to_owned());
        }
        if url.fragment().is_some() {
            return Err("a # in the URL: what is behind it would not be sent".to_owned());
        }
        Ok(template)
    }
}

fn parts(text: &str) -> Result<Vec<Part>, String> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        let (plain, from_brace) = rest.split_at(at);
        if !plain.is_empty() {
            parts.push(Part::Plain(plain.to_owned()));
        }
        let inside = from_brace.strip_prefix('{').and_then(|inside| inside.split_once('}'));
        let (name, after) = inside.ok_or_else(|| format!("a brace without its other one; allowed in braces: {NAMES}"))?;
        parts.push(match name {
            "endpoint" => Part::Endpoint,
            "host" => Part::Host,
            "hostname" => Part::Hostname,
            "model" => Part::Model,
            "version" => Part::Version,
            "pool" => Part::Pool,
            "route" => Part::Route,
            other => return Err(format!("`{{{other}}}`: not known; allowed in braces: {NAMES}")),
        });
        rest = after;
    }
    if !rest.is_empty() {
        parts.push(Part::Plain(rest.to_owned()));
    }
    Ok(parts)
}

/// Everything but letters, digits and `-._~` as `%xx`.
fn escape(text: &str, into: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            into.push(char::from(byte));
        } else {
            into.push_str(&format!("%{byte:02X}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FILLING: Filling<'static> = Filling { endpoint: "http://10.0.0.1:80", model: "m", version: 7, pool: "a/b", route: "ü?" };

    #[test]
    fn names_are_filled_in() {
        let filled = |text: &str| text.parse::<Template>().unwrap().fill(&FILLING);
        assert_eq!(filled("{endpoint}/load?m={model}&v={version}"), "http://10.0.0.1:80/load?m=m&v=7");
        assert_eq!(filled("https://ops.example/{host}/{pool}/{route}"), "https://ops.example/10.0.0.1:80/a%2Fb/%C3%BC%3F");
        assert_eq!(filled("{endpoint}"), "http://10.0.0.1:80");
        assert_eq!(filled("http://{hostname}:8001"), "http://10.0.0.1:8001");
        let named = |endpoint| "http://{hostname}:8001".parse::<Template>().unwrap().fill(&Filling { endpoint, ..FILLING });
        assert_eq!([named("http://[::1]:80"), named("https://a.example:443")], ["http://[::1]:8001", "http://a.example:8001"]);
    }

    #[test]
    fn what_is_no_url_is_refused() {
        for (text, said) in [
            ("", "0 bytes; must be 1 to 2048"),
            ("/load", "no URL"),
            ("ftp://a/", "must begin with http://"),
            ("{endpoint}/{v}", "`{v}`: not known; allowed in braces: {endpoint}"),
            ("{endpoint}/{version", "a brace without its other one"),
            ("{endpoint}/}", "a brace without its other one"),
            ("{endpoint}@evil/", "a user or password"),
            ("http://a:b@c/", "a user or password"),
            ("{endpoint}/a b", "' ' cannot be in a URL"),
            ("{model}", "no URL"),
            ("{endpoint}load", "no URL"),
            ("http://h/#x", "a # in the URL"),
        ] {
            let error = text.parse::<Template>().unwrap_err();
            assert!(error.contains(said), "{text:?}: {error}");
        }
    }

    proptest! {
        #[test]
        fn no_name_moves_the_call_to_another_host(
            text in "(\\{endpoint\\}|https?://a\\.b|\\{host\\}|http://\\{hostname\\}:1|)(/\\{pool\\}|\\?|\\{model\\}|\\{version\\}|[a-z@:#/{}.%]){0,12}",
            pool in "\\PC{0,12}",
        ) {
            if let Ok(template) = text.parse::<Template>() {
                let host = |pool: &str| {
                    let url = reqwest::Url::parse(&template.fill(&Filling { pool, ..FILLING }));
                    url.ok().and_then(|url| url.host_str().map(str::to_owned))
                };
                prop_assert_eq!(host(&pool), host("p"));
                prop_assert_eq!(template.to_string(), text);
            }
        }

        #[test]
        fn no_text_is_too_strange(text in "\\PC{0,80}") {
            let _ = text.parse::<Template>();
        }
    }
}
