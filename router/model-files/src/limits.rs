//! How large a model may be.

/// What a model may have at most. The size of its file is the caller's to limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Trees of a model.
    pub trees: usize,
    /// Nodes of all its trees, leaves included.
    pub nodes: usize,
    /// Nodes between a tree's root and a leaf. ONNX Runtime walks a tree by recursion when it loads one, so a tree that is
    /// one long branch ends its process: 1.32.0 on a stack of 2 MiB loads 2,000 levels, and is killed by 3,000.
    pub depth: usize,
    /// Features, and so their names.
    pub features: usize,
    /// Bytes of a name.
    pub name_bytes: usize,
    /// Nodes of an ONNX graph, those of its subgraphs included, and after its functions were put in where they are called.
    pub graph_nodes: usize,
    /// Graphs within graphs, the outermost included.
    pub nesting: usize,
    /// Numbers in a tensor that an ONNX file makes out of nothing: 64 MiB of them as FP32.
    pub made_numbers: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            trees: 100_000,
            nodes: 50_000_000,
            depth: 1_000,
            features: 10_000,
            name_bytes: 1 << 10,
            graph_nodes: 100_000,
            nesting: 8,
            made_numbers: 1 << 24,
        }
    }
}
