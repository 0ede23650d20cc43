//! Every field of ONNX IR version 14: what it holds, and whether it is repeated. From `onnx/onnx.proto` of the Python package onnx 1.23.2.

use std::mem::size_of;

use bytes::Bytes;

use super::proto;

/// The messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Model,
    Graph,
    Node,
    Attribute,
    Tensor,
    Segment,
    Sparse,
    ValueInfo,
    Type,
    TensorType,
    Shape,
    Dimension,
    Sequence,
    Map,
    Opaque,
    Function,
    Training,
    OpsetId,
    Entry,
    Annotation,
    NodeDevice,
    Device,
    Sharding,
    ShardedDim,
    SimpleSharding,
    IntList,
}

/// What a field holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Holds {
    Message(Kind),
    /// UTF-8.
    Text,
    Bytes,
    Varint,
    Fixed32,
    Fixed64,
}

/// A field: what it holds, and whether there may be several.
pub(super) type Field = (Holds, bool);

use Holds::{Fixed32, Fixed64, Message, Text, Varint};

const fn one(holds: Holds) -> Option<Field> {
    Some((holds, false))
}

const fn many(holds: Holds) -> Option<Field> {
    Some((holds, true))
}

impl Kind {
    /// Its field of that number.
    pub(super) fn field(self, number: u32) -> Option<Field> {
        match (self, number) {
            (Kind::Model, _) => model(number),
            (Kind::Graph, _) => graph(number),
            (Kind::Node, _) => node(number),
            (Kind::Attribute, _) => attribute(number),
            (Kind::Tensor, _) => tensor(number),
            (Kind::Function, _) => function(number),
            (Kind::Segment, 1 | 2) => one(Varint),
            (Kind::Sparse, 1 | 2) => one(Message(Kind::Tensor)),
            (Kind::Sparse, 3) => many(Varint),
            (Kind::Training, 1 | 2) => one(Message(Kind::Graph)),
            (Kind::Training, 3 | 4) => many(Message(Kind::Entry)),
            (Kind::OpsetId | Kind::Dimension, 1) if self == Kind::Dimension => one(Varint),
            (Kind::OpsetId, 2) => one(Varint),
            (Kind::OpsetId, 1) | (Kind::Entry, 1 | 2) | (Kind::Dimension, 2 | 3) | (Kind::Opaque, 1 | 2) => one(Text),
            (Kind::Annotation, 1) => one(Text),
            (Kind::Annotation, 2) => many(Message(Kind::Entry)),
            _ => types(self, number).or_else(|| devices(self, number)),
        }
    }

    /// Bytes that one takes once it is decoded, without what its fields point to.
    pub(super) fn decoded_bytes(self) -> usize {
        match self {
            Kind::Model => size_of::<proto::Model>(),
            Kind::Graph => size_of::<proto::Graph>(),
            Kind::Node => size_of::<proto::Node>(),
            Kind::Attribute => size_of::<proto::Attribute>(),
            Kind::Tensor => size_of::<proto::Tensor>(),
            Kind::Sparse => size_of::<proto::Sparse>(),
            Kind::ValueInfo => size_of::<proto::ValueInfo>(),
            Kind::Type => size_of::<proto::Type>(),
            Kind::TensorType => size_of::<proto::TensorType>(),
            Kind::Dimension => size_of::<proto::Dimension>(),
            Kind::Function => size_of::<proto::Function>(),
            Kind::Training => size_of::<proto::Training>(),
            Kind::OpsetId => size_of::<proto::OpsetId>(),
            Kind::Entry => size_of::<proto::Entry>(),
            // Not decoded, or within one of the others.
            _ => 0,
        }
    }
}

impl Holds {
    /// Bytes that one takes once it is decoded, without a message's own.
    pub(super) fn decoded_bytes(self) -> usize {
        match self {
            Holds::Message(kind) => kind.decoded_bytes(),
            Text => size_of::<String>(),
            Holds::Bytes => size_of::<Bytes>(),
            Varint | Fixed64 => 8,
            Fixed32 => 4,
        }
    }
}

fn model(number: u32) -> Option<Field> {
    match number {
        1 | 5 => one(Varint),
        2..=4 | 6 => one(Text),
        7 => one(Message(Kind::Graph)),
        8 => many(Message(Kind::OpsetId)),
        14 => many(Message(Kind::Entry)),
        20 => many(Message(Kind::Training)),
        25 => many(Message(Kind::Function)),
        26 => many(Message(Kind::Device)),
        _ => None,
    }
}

fn graph(number: u32) -> Option<Field> {
    match number {
        1 => many(Message(Kind::Node)),
        2 | 10 => one(Text),
        5 => many(Message(Kind::Tensor)),
        11..=13 => many(Message(Kind::ValueInfo)),
        14 => many(Message(Kind::Annotation)),
        15 => many(Message(Kind::Sparse)),
        16 => many(Message(Kind::Entry)),
        _ => None,
    }
}

fn node(number: u32) -> Option<Field> {
    match number {
        1 | 2 => many(Text),
        3 | 4 | 6..=8 => one(Text),
        5 => many(Message(Kind::Attribute)),
        9 => many(Message(Kind::Entry)),
        10 => many(Message(Kind::NodeDevice)),
        _ => None,
    }
}

fn attribute(number: u32) -> Option<Field> {
    match number {
        1 | 13 | 21 => one(Text),
        2 => one(Fixed32),
        3 | 20 => one(Varint),
        4 => one(Holds::Bytes),
        5 => one(Message(Kind::Tensor)),
        6 => one(Message(Kind::Graph)),
        7 => many(Fixed32),
        8 => many(Varint),
        9 => many(Holds::Bytes),
        10 => many(Message(Kind::Tensor)),
        11 => many(Message(Kind::Graph)),
        14 => one(Message(Kind::Type)),
        15 => many(Message(Kind::Type)),
        22 => one(Message(Kind::Sparse)),
        23 => many(Message(Kind::Sparse)),
        _ => None,
    }
}

fn tensor(number: u32) -> Option<Field> {
    match number {
        1 | 5 | 7 | 11 => many(Varint),
        2 | 14 => one(Varint),
        3 => one(Message(Kind::Segment)),
        4 => many(Fixed32),
        6 => many(Holds::Bytes),
        8 | 12 => one(Text),
        9 => one(Holds::Bytes),
        10 => many(Fixed64),
        13 | 16 => many(Message(Kind::Entry)),
        _ => None,
    }
}

fn function(number: u32) -> Option<Field> {
    match number {
        1 | 8 | 10 | 13 => one(Text),
        4..=6 => many(Text),
        7 => many(Message(Kind::Node)),
        9 => many(Message(Kind::OpsetId)),
        11 => many(Message(Kind::Attribute)),
        12 => many(Message(Kind::ValueInfo)),
        14 => many(Message(Kind::Entry)),
        _ => None,
    }
}

fn types(kind: Kind, number: u32) -> Option<Field> {
    match (kind, number) {
        (Kind::ValueInfo, 1 | 3) | (Kind::Type, 6) => one(Text),
        (Kind::ValueInfo, 2) | (Kind::Sequence, 1) | (Kind::Map, 2) => one(Message(Kind::Type)),
        (Kind::ValueInfo, 4) => many(Message(Kind::Entry)),
        // A sparse tensor's type has the fields of a tensor's, and an optional one those of a sequence.
        (Kind::Type, 1 | 8) => one(Message(Kind::TensorType)),
        (Kind::Type, 4 | 9) => one(Message(Kind::Sequence)),
        (Kind::Type, 5) => one(Message(Kind::Map)),
        (Kind::Type, 7) => one(Message(Kind::Opaque)),
        (Kind::TensorType, 1) | (Kind::Map, 1) => one(Varint),
        (Kind::TensorType, 2) => one(Message(Kind::Shape)),
        (Kind::Shape, 1) => many(Message(Kind::Dimension)),
        _ => None,
    }
}

fn devices(kind: Kind, number: u32) -> Option<Field> {
    match (kind, number) {
        (Kind::NodeDevice, 1) | (Kind::Device, 1) | (Kind::Sharding, 1) | (Kind::SimpleSharding, 2) => one(Text),
        (Kind::Device, 3) => many(Text),
        (Kind::NodeDevice, 2) => many(Message(Kind::Sharding)),
        (Kind::NodeDevice, 3) | (Kind::Device, 2) | (Kind::ShardedDim, 1) | (Kind::SimpleSharding, 1 | 3) | (Kind::IntList, 1) => {
            one(Varint)
        }
        (Kind::Sharding, 2) | (Kind::IntList, 2) => many(Varint),
        (Kind::Sharding, 3) => many(Message(Kind::IntList)),
        (Kind::Sharding, 4) => many(Message(Kind::ShardedDim)),
        (Kind::ShardedDim, 2) => many(Message(Kind::SimpleSharding)),
        _ => None,
    }
}
