//! What is asked: one request for each user, made before the clock starts.

use clap::Args;

/// How many different users ask, in turns.
const USERS: usize = 2_000;

/// What the requests of a workload look like.
#[derive(Debug, Clone, Args)]
pub(crate) struct Shape {
    /// What is asked for.
    #[arg(long, default_value = "/search?q=hello")]
    pub(crate) path: String,
    /// POST a body of so many bytes instead of a GET.
    #[arg(long, default_value_t = 0)]
    pub(crate) post: usize,
    /// Every so many-th user sends `x-beta: 1`; 0 is nobody.
    #[arg(long, default_value_t = 0)]
    pub(crate) beta_every: usize,
    /// A number from 1 to so many, of the user, takes the place of an n in curly brackets in the path.
    #[arg(long, default_value_t = 1)]
    pub(crate) paths: usize,
}

impl Shape {
    /// A GET of 1 KB.
    pub(crate) fn get() -> Shape {
        Shape { path: "/search?q=hello".to_owned(), post: 0, beta_every: 0, paths: 1 }
    }

    /// A POST of `kib` KiB, answered with as many.
    pub(crate) fn post(kib: usize) -> Shape {
        Shape { path: format!("/size/{}", kib * 1024), post: kib * 1024, ..Shape::get() }
    }

    /// One request for each user, with the fields that a browser behind a search page sends.
    pub(crate) fn requests(&self) -> Vec<Vec<u8>> {
        (0..USERS).map(|user| self.request(user)).collect()
    }

    fn request(&self, user: usize) -> Vec<u8> {
        let method = if self.post > 0 { "POST" } else { "GET" };
        let path = self.path.replace("{n}", &(user % self.paths.max(1) + 1).to_string());
        let mut head = format!(
            "{method} {path} HTTP/1.1\r\nhost: search.example.com\r\nuser-agent: Mozilla/5.0 (X11; Linux x86_64)\r\naccept: */*\r\n\
             accept-encoding: gzip, deflate\r\ncookie: sid={user:016x}; theme=dark\r\nx-user-id: user{user}\r\n"
        );
        if self.beta_every > 0 && user.is_multiple_of(self.beta_every) {
            head.push_str("x-beta: 1\r\n");
        }
        if self.post > 0 {
            head.push_str(&format!("content-type: application/json\r\ncontent-length: {}\r\n", self.post));
        }
        head.push_str("\r\n");
        let mut request = head.into_bytes();
        request.resize(request.len() + self.post, b'y');
        request
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::field;

    #[test]
    fn every_user_has_a_name_and_a_session() {
        let requests = Shape { beta_every: 20, ..Shape::get() }.requests();
        assert_eq!(requests.len(), USERS);
        assert_eq!(field(&requests[7], b"x-user-id"), Some(&b"user7"[..]));
        assert_eq!(field(&requests[20], b"x-beta"), Some(&b"1"[..]));
        assert_eq!(field(&requests[21], b"x-beta"), None);
    }

    #[test]
    fn paths_are_spread_over_the_users() {
        let shape = Shape { path: "/r{n}/x".to_owned(), paths: 3, ..Shape::get() };
        assert!(shape.requests()[5].starts_with(b"GET /r3/x HTTP/1.1\r\n"));
    }

    #[test]
    fn a_post_is_as_long_as_it_says() {
        let request = &Shape::post(4).requests()[0];
        assert!(request.starts_with(b"POST /size/4096 "));
        assert!(request.ends_with(&[b'y'; 4096]));
        assert_eq!(field(request, b"content-length"), Some(&b"4096"[..]));
    }
}
