//! What the URLs of `state.url` come to.

use super::*;

fn nodes(redis: &RedisState) -> Vec<String> {
    redis.nodes.iter().map(ToString::to_string).collect()
}

/// What a URL comes to, and what is said of one that is refused.
pub(in crate::config) fn read_or_refuse(url: &str) -> Result<RedisState, String> {
    let mut checker = Checker::default();
    let written = written::State { url: Some(url.to_owned()), ..Default::default() };
    match check_url(&mut checker, &written) {
        StateUrl::Redis(redis) => Ok(*redis),
        StateUrl::Embedded => Err(checker.said()),
    }
}

fn read(url: &str) -> RedisState {
    read_url(url).unwrap_or_else(|_| panic!("{url} is refused"))
}

#[test]
fn sentinels_are_a_list_with_the_name_of_the_primary() {
    let redis = read("redis+sentinel://ann:s%40cret@10.0.0.1,[fd00::2]:26380,s3.internal:26379/mymaster/2");
    assert_eq!(redis.topology, Topology::Sentinel { primary: "mymaster".to_owned() });
    assert_eq!(nodes(&redis), ["10.0.0.1:26379", "[fd00::2]:26380", "s3.internal:26379"]);
    assert_eq!((redis.database, redis.login.username.as_deref()), (2, Some("ann")));
    assert_eq!(redis.login.password, Password::Written("s@cret".to_owned()));
    assert!(redis.tls.is_none());
    assert_eq!(redis.shown, "redis+sentinel://***@10.0.0.1,[fd00::2]:26380,s3.internal:26379/mymaster/2");
    assert!(!format!("{redis:?}").contains("cret"), "{redis:?}");
    assert!(read("rediss+sentinel://h/m").tls.is_some());
}

#[test]
fn a_cluster_is_a_list_of_nodes() {
    let redis = read("rediss+cluster://h1,h2:7000");
    assert_eq!((&redis.topology, nodes(&redis)), (&Topology::Cluster, vec!["h1:6379".to_owned(), "h2:7000".to_owned()]));
    assert!(redis.tls.is_some() && redis.login == Login::default());
    assert_eq!(read("redis+cluster://h1/0").topology, Topology::Cluster);
}

#[test]
fn one_server_is_as_the_field_writes_it() {
    let redis = read("rediss://user:password@host:6380/3");
    assert_eq!((&redis.topology, nodes(&redis), redis.database), (&Topology::Single, vec!["host:6380".to_owned()], 3));
    assert_eq!(redis.login.password, Password::Written("password".to_owned()));
    assert_eq!(nodes(&read("redis://[::1]")), ["[::1]:6379"]);
}

#[test]
fn what_makes_no_sense_is_refused() {
    for url in [
        "",
        "localhost:6379",
        "http://a",
        "redis+unix:///tmp/x",
        "redis+sentinel://h",
        "redis+sentinel://h/",
        "redis+sentinel://h/m/x",
        "redis+sentinel://h/m/-1",
        "redis+sentinel:///m",
        "redis+sentinel://h,,i/m",
        "redis+sentinel://h:99999/m",
        "redis+sentinel://h:0/m",
        "redis+sentinel://h i/m",
        "redis+cluster://h/1",
        "redis+cluster://",
        "redis+cluster://h?x=1",
        "rediss://h/#insecure",
        "redis://h/-2",
    ] {
        assert!(read_url(url).is_err(), "{url}");
    }
}

#[test]
fn what_is_refused_is_shown_without_its_password() {
    let urls = ["redis:ann:s3cret@h", "http://ann:s3cret@h", "redis+sentinel://ann:s3cret@h", "redis://s3cret@://h", "s3cret@redis://h"];
    for url in urls.into_iter().chain(["redis://h?protocol=s3cret@h", "redis://ann:s3cret@h/nosuch"]) {
        let said = read_or_refuse(url).unwrap_err();
        assert!(said.contains("@") && !said.contains("cret"), "{said}");
    }
}

#[test]
fn nodes_are_read_as_redis_writes_them() {
    let node = |text: &str| Node::read(text, None).map(|node| (node.host, node.port));
    assert_eq!(node("127.0.0.1:7000"), Some(("127.0.0.1".to_owned(), 7000)));
    assert_eq!(node("fd00::1:7000"), Some(("fd00::1".to_owned(), 7000)));
    for bad in ["", ":7000", "host", "host:", "host:x"] {
        assert_eq!(node(bad), None, "{bad:?}");
    }
}
