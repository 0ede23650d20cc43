//! torch: tensors over the storages of an archive, and the common layers. A layer's state may hold hooks, which are called when it is used;
//! they can only be what is in this list.

use super::super::allowed::{Rule, Use};
use super::Entry;

pub(super) const LIST: &[Entry] = &[
    ("torch._utils", Use::Checked(Rule::Tensor), "_rebuild_tensor_v2"),
    ("torch._utils", Use::Checked(Rule::Parameter), "_rebuild_parameter"),
    (
        "torch",
        Use::Name,
        "FloatStorage DoubleStorage HalfStorage BFloat16Storage LongStorage IntStorage ShortStorage CharStorage ByteStorage BoolStorage \
         ComplexFloatStorage ComplexDoubleStorage QInt8Storage QUInt8Storage QInt32Storage",
    ),
    ("torch.storage", Use::Name, "UntypedStorage TypedStorage"),
    (
        "torch",
        Use::Name,
        "float16 float32 float64 bfloat16 int8 int16 int32 int64 uint8 bool complex64 complex128 float double half long int short",
    ),
    ("torch", Use::Plain, "Size device"),
    (
        "torch.nn.modules.activation",
        Use::New,
        "ReLU ReLU6 ELU SELU GELU SiLU Sigmoid Tanh Softmax LogSoftmax LeakyReLU PReLU Softplus Hardtanh MultiheadAttention",
    ),
    ("torch.nn.modules.batchnorm", Use::New, "BatchNorm1d BatchNorm2d"),
    ("torch.nn.modules.container", Use::New, "Sequential ModuleList ModuleDict ParameterList ParameterDict"),
    ("torch.nn.modules.conv", Use::New, "Conv1d Conv2d"),
    ("torch.nn.modules.dropout", Use::New, "Dropout Dropout1d Dropout2d AlphaDropout"),
    ("torch.nn.modules.flatten", Use::New, "Flatten Unflatten"),
    ("torch.nn.modules.linear", Use::New, "Linear Bilinear Identity NonDynamicallyQuantizableLinear"),
    ("torch.nn.modules.normalization", Use::New, "LayerNorm GroupNorm RMSNorm"),
    ("torch.nn.modules.pooling", Use::New, "AdaptiveAvgPool1d AdaptiveMaxPool1d AvgPool1d MaxPool1d"),
    ("torch.nn.modules.rnn", Use::New, "LSTM GRU RNN LSTMCell GRUCell"),
    ("torch.nn.modules.sparse", Use::New, "Embedding EmbeddingBag"),
    ("torch.nn.modules.transformer", Use::New, "Transformer TransformerEncoder TransformerEncoderLayer"),
];
