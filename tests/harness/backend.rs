//! A real HTTP backend under the test's control: it answers, stalls, fails or dies when told to, and remembers when the last
//! query arrived.

use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;

use crate::shoppers::Random;

/// What a backend does with a query. Health checks (`/v2/health/ready`) are answered with 200, or as [`Backend::feel`] says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Behaviour {
    /// 200, with the backend's name as the body.
    Answer,
    /// 200, with the request's body as the body, streamed as it arrives.
    Echo,
    /// 200, with the request's head as text: what the backend was sent.
    ShowHead,
    /// This status.
    Status(u16),
    /// 200 and this status in turn.
    EveryOther(u16),
    /// This status for one query of so many, 200 for the others.
    OneIn(u64, u16),
    /// 200 after a while.
    Delay(Duration),
    /// 200 after one of these times, drawn anew for each query.
    Takes(Arc<[Duration]>),
    /// No answer, ever.
    Hang,
    /// The head and half of the body, then the connection breaks.
    BreakBody,
    /// A body of so many bytes.
    Large(usize),
}

/// A running backend.
pub struct Backend {
    /// Where it listens.
    pub address: SocketAddr,
    shared: Arc<Shared>,
    running: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

struct Shared {
    name: String,
    tls: Option<Arc<ServerConfig>>,
    behaviour: Mutex<Behaviour>,
    started: Instant,
    arrivals: AtomicU64,
    last_arrival_nanos: AtomicU64,
    health: AtomicU16,
    checks: AtomicU64,
}

impl Backend {
    /// Starts one on a free port, for HTTP/1.1 and HTTP/2 with prior knowledge.
    pub fn start(name: &str) -> Backend {
        Backend::start_with(name, "127.0.0.1:0", None)
    }

    /// Starts one at this address, like `127.0.0.2:9001`: the loopback network has many.
    pub fn start_at(name: &str, address: &str) -> Backend {
        Backend::start_with(name, address, None)
    }

    /// The same over TLS, where ALPN decides.
    pub fn start_tls(name: &str, tls: Arc<ServerConfig>) -> Backend {
        Backend::start_with(name, "127.0.0.1:0", Some(tls))
    }

    fn start_with(name: &str, address: &str, tls: Option<Arc<ServerConfig>>) -> Backend {
        let shared = Arc::new(Shared {
            name: name.to_owned(),
            tls,
            behaviour: Mutex::new(Behaviour::Answer),
            started: Instant::now(),
            arrivals: AtomicU64::new(0),
            last_arrival_nanos: AtomicU64::new(0),
            health: AtomicU16::new(200),
            checks: AtomicU64::new(0),
        });
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let running = Some(run(listener, shared.clone()));
        Backend { address, shared, running }
    }

    /// As an endpoint in a config.
    pub fn url(&self) -> String {
        format!("{}://{}", if self.shared.tls.is_some() { "https" } else { "http" }, self.address)
    }

    /// From now on, do this.
    pub fn behave(&self, behaviour: Behaviour) {
        *self.shared.behaviour.lock().unwrap() = behaviour;
    }

    /// From now on, answer health checks with this status.
    pub fn feel(&self, status: u16) {
        self.shared.health.store(status, Ordering::SeqCst);
    }

    /// Health checks that arrived.
    pub fn checks(&self) -> u64 {
        self.shared.checks.load(Ordering::SeqCst)
    }

    /// Queries that arrived (health checks are not queries).
    pub fn arrivals(&self) -> u64 {
        self.shared.arrivals.load(Ordering::SeqCst)
    }

    /// When the last query arrived.
    pub fn last_arrival(&self) -> Instant {
        self.shared.started + Duration::from_nanos(self.shared.last_arrival_nanos.load(Ordering::SeqCst))
    }

    /// Dies: every connection is reset, the port is closed.
    pub fn stop(&mut self) {
        if let Some((stop, thread)) = self.running.take() {
            let _ = stop.send(());
            thread.join().unwrap();
        }
    }

    /// Comes back on the same port.
    pub fn restart(&mut self) {
        self.stop();
        let listener = std::iter::repeat_with(|| TcpListener::bind(self.address)).take(1_000).find_map(Result::ok).unwrap();
        self.running = Some(run(listener, self.shared.clone()));
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.stop();
    }
}

fn run(listener: TcpListener, shared: Arc<Shared>) -> (oneshot::Sender<()>, JoinHandle<()>) {
    let (stop, stopped) = oneshot::channel();
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        // Leaving `block_on` drops the runtime with all connections: the backend dies as a killed process does.
        runtime.block_on(async {
            tokio::select! {
                () = accept(listener, shared) => {}
                _ = stopped => {}
            }
        });
    });
    (stop, thread)
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    listener.set_nonblocking(true).unwrap();
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let _ = stream.set_nodelay(true);
        let shared = shared.clone();
        tokio::spawn(async move {
            match shared.tls.clone() {
                None => serve(stream, shared).await,
                Some(tls) => {
                    if let Ok(stream) = TlsAcceptor::from(tls).accept(stream).await {
                        serve(stream, shared).await;
                    }
                }
            }
        });
    }
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, shared: Arc<Shared>) {
    let service = hyper::service::service_fn(move |request| answer(shared.clone(), request));
    let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
    let _ = builder.serve_connection(TokioIo::new(stream), service).await;
}

type Body = BoxBody<Bytes, std::io::Error>;

async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    if request.uri().path() == "/v2/health/ready" {
        shared.checks.fetch_add(1, Ordering::SeqCst);
        let mut response = Response::new(full(Bytes::new()));
        *response.status_mut() = StatusCode::from_u16(shared.health.load(Ordering::SeqCst)).unwrap();
        return Ok(response);
    }
    let number = shared.arrivals.fetch_add(1, Ordering::SeqCst);
    let nanos = u64::try_from(shared.started.elapsed().as_nanos()).unwrap();
    shared.last_arrival_nanos.fetch_max(nanos, Ordering::SeqCst);
    let behaviour = shared.behaviour.lock().unwrap().clone();
    let body = match behaviour {
        Behaviour::Echo => return Ok(Response::new(request.into_body().map_err(std::io::Error::other).boxed())),
        Behaviour::ShowHead => full(Bytes::from(show_head(&request))),
        Behaviour::Hang => std::future::pending().await,
        Behaviour::BreakBody => broken_body(),
        Behaviour::Large(bytes) => full(Bytes::from(vec![b'x'; bytes])),
        Behaviour::Answer
        | Behaviour::Status(_)
        | Behaviour::EveryOther(_)
        | Behaviour::OneIn(..)
        | Behaviour::Delay(_)
        | Behaviour::Takes(_) => full(Bytes::from(shared.name.clone())),
    };
    let delay = match &behaviour {
        Behaviour::Delay(delay) => Some(*delay),
        Behaviour::Takes(times) => Some(times[(Random(number).number() % times.len() as u64) as usize]),
        _ => None,
    };
    if let Some(delay) = delay {
        tokio::time::sleep(delay).await;
    }
    // A query counts as received when its body is: as with a real ranker.
    let _ = request.into_body().collect().await;
    let mut response = Response::new(body);
    match behaviour {
        Behaviour::EveryOther(_) if number.is_multiple_of(2) => {}
        Behaviour::OneIn(queries, _) if !number.is_multiple_of(queries) => {}
        Behaviour::Status(status) | Behaviour::EveryOther(status) | Behaviour::OneIn(_, status) => {
            *response.status_mut() = StatusCode::from_u16(status).unwrap()
        }
        _ => {}
    }
    Ok(response)
}

fn full(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed()
}

fn broken_body() -> Body {
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    tokio::spawn(async move {
        let _ = sender.send(Ok(Frame::data(Bytes::from_static(b"half of")))).await;
        // There is room when the connection has taken the first half; it flushes that before it looks for more.
        let _ = sender.reserve().await.map(|room| room.send(Err(std::io::Error::other("the backend broke"))));
    });
    BodyExt::boxed(StreamBody::new(tokio_stream::wrappers::ReceiverStream::new(receiver)))
}

fn show_head(request: &Request<Incoming>) -> String {
    let mut text = format!("{} {}\n", request.method(), request.uri());
    if request.version() == hyper::Version::HTTP_2 {
        text.push_str("over h2\n");
    }
    for (name, value) in request.headers() {
        text.push_str(&format!("{name}: {}\n", String::from_utf8_lossy(value.as_bytes())));
    }
    text
}
