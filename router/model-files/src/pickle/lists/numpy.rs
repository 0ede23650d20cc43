//! numpy (1 as `numpy.core`, 2 as `numpy._core`), scipy's sparse matrices, and joblib's arrays.
//!
//! `_reconstruct` unpickles nothing: it makes an empty array, which gets its data by BUILD; both are checked. `scalar` and `_frombuffer`
//! read raw bytes by a data type, which is why data types are checked (see `dtype`).

use super::super::allowed::{Rule, Use};
use super::Entry;

pub(super) const LIST: &[Entry] = &[
    ("numpy", Use::Checked(Rule::Dtype), "dtype"),
    ("numpy", Use::Checked(Rule::Ndarray), "ndarray"),
    (
        "numpy",
        Use::Name,
        "bool bool_ int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64 longdouble complex64 complex128 str_ bytes_ object_ \
         datetime64 timedelta64 intc uintc int_ uint longlong ulonglong",
    ),
    ("numpy.core.multiarray", Use::Checked(Rule::Reconstruct), "_reconstruct"),
    ("numpy._core.multiarray", Use::Checked(Rule::Reconstruct), "_reconstruct"),
    ("numpy.core.multiarray", Use::Checked(Rule::Scalar), "scalar"),
    ("numpy._core.multiarray", Use::Checked(Rule::Scalar), "scalar"),
    ("numpy.core.numeric", Use::Checked(Rule::FromBuffer), "_frombuffer"),
    ("numpy._core.numeric", Use::Checked(Rule::FromBuffer), "_frombuffer"),
    ("numpy.random._pickle", Use::Checked(Rule::Random), "__bit_generator_ctor __generator_ctor __randomstate_ctor"),
    ("numpy.random._mt19937", Use::Name, "MT19937"),
    ("numpy.random._pcg64", Use::Name, "PCG64 PCG64DXSM"),
    ("numpy.random._philox", Use::Name, "Philox"),
    ("numpy.random._sfc64", Use::Name, "SFC64"),
    ("numpy.random.bit_generator", Use::Own, "SeedSequence"),
    ("numpy.random.bit_generator", Use::Checked(Rule::Cython), "__pyx_unpickle_SeedSequence"),
    ("joblib.numpy_pickle", Use::Checked(Rule::Wrapper), "NumpyArrayWrapper"),
    ("scipy.sparse._bsr", Use::New, "bsr_array bsr_matrix"),
    ("scipy.sparse._coo", Use::New, "coo_array coo_matrix"),
    ("scipy.sparse._csc", Use::New, "csc_array csc_matrix"),
    ("scipy.sparse._csr", Use::New, "csr_array csr_matrix"),
    ("scipy.sparse._dia", Use::New, "dia_array dia_matrix"),
    ("scipy.sparse._dok", Use::Items, "dok_array dok_matrix"),
    ("scipy.sparse._lil", Use::New, "lil_array lil_matrix"),
    // Before scipy 1.8.
    ("scipy.sparse.bsr", Use::New, "bsr_matrix"),
    ("scipy.sparse.coo", Use::New, "coo_matrix"),
    ("scipy.sparse.csc", Use::New, "csc_matrix"),
    ("scipy.sparse.csr", Use::New, "csr_matrix"),
    ("scipy.sparse.dia", Use::New, "dia_matrix"),
    ("scipy.sparse.lil", Use::New, "lil_matrix"),
];
