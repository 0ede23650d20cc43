//! Which node of a cluster has which slots, as its nodes say. Pure.

use redis::{ErrorKind, RedisError, RedisResult, Value};

use super::link::info_field;
use crate::config::Node;

/// The slots by owner, and every node that was named.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct SlotMap {
    /// Grows with each election and each slot that changes its owner.
    pub(super) epoch: u64,
    /// First slot, last slot, owner.
    ranges: Vec<(u16, u16, Node)>,
    /// Primaries and replicas.
    pub(super) nodes: Vec<Node>,
}

impl SlotMap {
    /// Reads what `CLUSTER INFO` and `CLUSTER SLOTS` answered at `asked`.
    ///
    /// # Errors
    /// The node itself says that it does not know: it is cut off from the others.
    pub(super) fn read(info: &str, slots: &Value, asked: &Node) -> RedisResult<SlotMap> {
        let epoch = epoch_of(info, asked)?;
        let Value::Array(entries) = slots else {
            return Err((ErrorKind::Client, "no list of slots", asked.to_string()).into());
        };
        let mut map = SlotMap { epoch, ..SlotMap::default() };
        for entry in entries {
            let Value::Array(entry) = entry else { continue };
            let [Value::Int(first), Value::Int(last), nodes @ ..] = entry.as_slice() else { continue };
            let nodes: Vec<Node> = nodes.iter().filter_map(|node| node_of(node, asked)).collect();
            if let (Ok(first), Ok(last), Some(owner)) = (u16::try_from(*first), u16::try_from(*last), nodes.first()) {
                map.ranges.push((first, last, owner.clone()));
            }
            map.nodes.extend(nodes);
        }
        map.nodes.sort();
        map.nodes.dedup();
        Ok(map)
    }

    pub(super) fn owner(&self, slot: u16) -> Option<&Node> {
        self.ranges.iter().find(|(first, last, _)| (*first..=*last).contains(&slot)).map(|(_, _, owner)| owner)
    }
}

/// The epoch of a node that is well.
///
/// # Errors
/// It says `cluster_state:fail`.
pub(super) fn epoch_of(info: &str, asked: &Node) -> RedisResult<u64> {
    if info_field(info, "cluster_state") != Some("ok") {
        return Err(RedisError::from((ErrorKind::Io, "the cluster is down", format!("by what {asked} says"))));
    }
    Ok(info_field(info, "cluster_current_epoch").and_then(|epoch| epoch.parse().ok()).unwrap_or(0))
}

/// `[address, port, id, ...]`. A node that does not know how it is reached leaves its own address out.
fn node_of(value: &Value, asked: &Node) -> Option<Node> {
    let Value::Array(parts) = value else { return None };
    let [host, Value::Int(port), ..] = parts.as_slice() else { return None };
    let host = match host {
        Value::BulkString(host) => std::str::from_utf8(host).ok()?,
        Value::SimpleString(host) => host,
        Value::Nil => "",
        _ => return None,
    };
    let host = match host {
        "" => asked.host.as_str(),
        "?" => return None,
        host => host,
    };
    Some(Node { host: host.to_owned(), port: u16::try_from(*port).ok()? })
}

/// Where `MOVED 3999 10.0.0.1:7001` and `ASK ...` point to.
pub(super) fn redirected(error: &RedisError, from: &Node) -> Option<Node> {
    let (address, _) = error.redirect_node()?;
    match address.strip_prefix(':') {
        Some(port) => Some(Node { host: from.host.clone(), port: port.parse().ok()? }),
        None => Node::read(address, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(host: &str, port: u16) -> Node {
        Node { host: host.to_owned(), port }
    }

    fn entry(first: i64, last: i64, nodes: &[(Value, i64)]) -> Value {
        let node = |(host, port): &(Value, i64)| Value::Array(vec![host.clone(), Value::Int(*port), Value::BulkString(b"id".to_vec())]);
        Value::Array([Value::Int(first), Value::Int(last)].into_iter().chain(nodes.iter().map(node)).collect())
    }

    fn host(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    #[test]
    fn owners_and_replicas_are_read() {
        let slots = Value::Array(vec![
            entry(0, 99, &[(host("10.0.0.1"), 7000), (host("10.0.0.2"), 7001)]),
            entry(100, 100, &[(Value::Nil, 7002)]),
            entry(101, 16_383, &[(host("?"), 7003), (host("10.0.0.4"), 7004)]),
        ]);
        let asked = node("asked", 7000);
        let map = SlotMap::read("cluster_enabled:1\r\ncluster_state:ok\r\ncluster_current_epoch:7\r\n", &slots, &asked).unwrap();
        assert_eq!((map.epoch, map.owner(99), map.owner(100)), (7, Some(&node("10.0.0.1", 7000)), Some(&node("asked", 7002))));
        assert_eq!(map.nodes.len(), 4);
    }

    #[test]
    fn a_node_that_is_cut_off_is_not_believed() {
        let asked = node("a", 1);
        assert!(SlotMap::read("cluster_state:fail\r\ncluster_current_epoch:7\r\n", &Value::Array(Vec::new()), &asked).is_err());
        let map = SlotMap::read("cluster_state:ok\r\n", &Value::Array(vec![Value::Int(1), entry(-1, 5, &[])]), &asked).unwrap();
        assert_eq!(map.owner(1), None);
    }
}
