//! Hanging up on a client that does not take what is there for it.
//!
//! A socket that is closed in order goes on sending what the kernel holds for it: a MiB or more, for as long as the client keeps the connection
//! alive and reads next to nothing. The router would be rid of such a client, and the machine would not. So the connection is reset.

use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

/// A connection that can be closed without a farewell.
pub(crate) trait HangUp {
    /// From now on, closing it throws away what was not sent.
    fn reset_on_close(&self);
}

impl HangUp for TcpStream {
    fn reset_on_close(&self) {
        // Where it fails, the connection is closed in order.
        let _ = self.set_zero_linger();
    }
}

impl HangUp for TlsStream<TcpStream> {
    fn reset_on_close(&self) {
        self.get_ref().0.reset_on_close();
    }
}
